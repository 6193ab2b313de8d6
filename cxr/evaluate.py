"""python -m cxr.evaluate: score trained networks on another hospital's images and on their own test images."""

import sys
from pathlib import Path
from typing import Any

from cxr.errors import UserError
from cxr.jobs.exit_codes import fail
from cxr.jobs.single_command import run_single

USAGE = """python -m cxr.evaluate ckpt=RUN/checkpoints/best.ckpt data=folder data.root=OTHER [option=value …]
Scores a trained network on images from elsewhere, except those that it was trained on, and compares the scores with
those on its own test images. Writes evaluation.json, evaluation.md, predictions.csv, rejected.csv and TensorBoard's
files to runs/NAME. Options: name, cache_dir, calibrate_on (how many of the images to calibrate on; the
others are scored), data.hospital (the column that names the hospital), data.on_leak (drop, keep, fail), data.copies
(auto, near, exact), data.on_bad (skip, fail, strict), data.negatives (keep, invert, reject), data.dicom_patient (hash,
keep, ignore), data.dicom_unknown_parts (reject, keep), data.batch_size, data.num_workers, data.resident,
trainer.accelerator, trainer.devices; data=phantom and data=kaggle as for cxr.train. Image size and precision are those
of the training. Several networks are scored as one ensemble: ckpt=A,B,C, or the folder of a sweep, ckpt=runs/NAME."""
OF_THE_RUN = ("data.image_size=", "trainer.precision=")


def main() -> None:
    """Exit codes: 0 scored, 2 wrong options, no checkpoint or no images, 128 + N stopped by signal N."""
    if word := next((w for w in sys.argv[1:] if w.lstrip("+").startswith(OF_THE_RUN)), None):
        fail(UserError(f"{word}: cxr.evaluate uses that of the network's training; leave this option out"))
    run_single(evaluate, USAGE, "evaluate")


def evaluate(options: dict[str, Any], folder: Path) -> None:
    """Score the images that the options name."""
    from cxr.jobs import external_evaluation as external  # torch: not before it is needed

    print(external.evaluate(options, folder))


if __name__ == "__main__":
    main()
