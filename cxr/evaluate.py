"""python -m cxr.evaluate: what a trained network is worth on films from elsewhere, beside what it was worth at home."""

import logging
import sys

from cxr.command_line import fail, single_run
from cxr.errors import UserError

USAGE = """python -m cxr.evaluate ckpt=RUN/checkpoints/best.ckpt data=folder data.root=OTHER [option=value …]
Scores a trained network on films from elsewhere, less those that it was trained on, beside its own test films. Writes
evaluation.json, evaluation.md, predictions.csv, rejected.csv and TensorBoard's files to runs/NAME. Options:
name, cache_dir, data.on_leak (drop, keep, fail), data.batch_size, data.num_workers, data.resident, trainer.accelerator,
trainer.devices, trainer.precision; data=phantom and data=kaggle as for cxr.train."""


def main() -> None:
    """Exit codes: 0 scored, 2 wrong options, no checkpoint or no films, 130 interrupted."""
    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        print(USAGE)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        if own := next((word for word in sys.argv[1:] if word.lstrip("+").startswith("data.image_size=")), None):
            raise UserError(
                f"{own}: the films are made as large as those that the network was trained on; leave it out"
            )
        with single_run(sys.argv[1:], "evaluate") as (options, folder):
            from cxr.external import evaluate  # torch: not before it is needed

            print(evaluate(options, folder))
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
