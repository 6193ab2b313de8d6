"""python -m cxr.benchmarks.predict_speed ckpt=… source=…: how fast cxr.predict is, against reading the images alone.

Both read as far ahead, with a thread for each core; in turn, so that their ratio says more than either.
"""

import os
import statistics
import sys
import time
from collections import deque
from pathlib import Path

from cxr.data.decode import UNREADABLE, decode
from cxr.data.files import list_files
from cxr.data.reading_ahead import read_ahead
from cxr.jobs.exit_codes import answering
from cxr.jobs.file_predictions import predict_files
from cxr.options.checkpoint_paths import paths_in
from cxr.options.command_line import read_options

REPEATS = 3


def main() -> None:
    """Print images/s of both and their ratio; options and exit codes are those of cxr.predict."""
    from cxr.jobs.members import load_networks

    with answering():
        options = read_options(sys.argv[1:], "predict")
        model = load_networks(paths_in(options["ckpt"]), options["trainer"]["accelerator"]).model
        files, cores = list_files(Path(options["source"]).expanduser()), os.cpu_count() or 1

        def read(file: Path) -> None:
            try:
                for size in model.sizes:
                    decode(file, size)
            except UNREADABLE:
                return

        rates: dict[str, list[float]] = {"reading": [], "predicting": []}
        for repeat in range(REPEATS + 1):
            for name, work in (
                ("reading", read_ahead(read, files, 2 * options["data"]["batch_size"], cores)),
                ("predicting", predict_files(model, files, options["data"], None)),
            ):
                start = time.perf_counter()
                deque(work, maxlen=0)
                if repeat:  # the first one reads the files from the disk
                    rates[name].append(len(files) / (time.perf_counter() - start))
        reading, predicting = (statistics.median(rates[name]) for name in ("reading", "predicting"))
        print(
            f"{len(files):,} images, {cores} cores: reading alone {reading:.0f} images/s, cxr.predict {predicting:.0f} "
            f"images/s, {predicting / reading:.0%} of it"
        )


if __name__ == "__main__":
    main()
