"""python -m cxr.benchmarks.unfamiliar ckpt=… source=…: how many images a network takes for unlike its training images.

Of the images as they are, and of the same images spoilt: those should be refused, as photographs should.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cxr.data.decode import UNREADABLE, Decoded, Reading, decode
from cxr.data.files import list_files, not_an_image
from cxr.data.reading_ahead import read_ahead
from cxr.errors import UserError
from cxr.jobs.exit_codes import answering
from cxr.options.checkpoint_paths import paths_in
from cxr.options.command_line import read_options

SPOILT: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as they are": lambda images: images,
    "mirrored": lambda images: images[:, :, ::-1],
    "negatives": lambda images: 255 - images,
    "turned by 90 degrees": lambda images: np.rot90(images, 1, (1, 2)),
    "upside down": lambda images: images[:, ::-1],
    "the middle half of each side": lambda images: enlarged(images),
}


def main() -> None:
    """Print a line for each kind; options and exit codes are those of cxr.predict."""
    import torch

    from cxr.data.batches import to_unit
    from cxr.jobs.members import load_networks

    with answering():
        options = read_options(sys.argv[1:], "predict")
        model = load_networks(paths_in(options["ckpt"]), options["trainer"]["accelerator"]).model
        if not model.familiar or len(model.sizes) > 1:
            raise UserError(
                f"ckpt={options['ckpt']}: needs networks of one image size, and what they are familiar with"
            )
        (size,), step = model.sizes, options["data"]["batch_size"]
        reading = Reading.of({**options["data"], "dicom_patient": "ignore"})
        images = read_images(Path(options["source"]).expanduser(), size, reading)
        for name, spoil in SPOILT.items():
            spoilt = np.ascontiguousarray(spoil(images))
            parts = [torch.from_numpy(spoilt[start : start + step])[:, None] for start in range(0, len(spoilt), step)]
            scores = np.concatenate([model.judge({size: to_unit(part.to(model.device))})[1] for part in parts])
            print(f"{name:<29} {(scores > 1).mean():6.1%} of {len(scores):,} unlike the training images")


def read_images(source: Path, size: int, reading: Reading) -> np.ndarray:
    """The images of a folder that can be read: uint8 (N, size, size)."""

    def read(file: Path) -> Decoded | None:
        try:
            return None if not_an_image(file) else decode(file, size, reading)
        except UNREADABLE:
            return None

    decoded = read_ahead(read, list_files(source), 64, os.cpu_count() or 1)
    return np.stack([image.pixels for image in decoded if image])


def enlarged(images: np.ndarray) -> np.ndarray:
    """The middle of images (N, S, S), each of its pixels as two by two."""
    quarter = images.shape[1] // 4
    middle = images[:, quarter : 3 * quarter, quarter : 3 * quarter]
    return middle.repeat(2, axis=1).repeat(2, axis=2)


if __name__ == "__main__":
    main()
