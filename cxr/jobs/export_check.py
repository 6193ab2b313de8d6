"""The self-check of an exported file: whether it predicts as cxr.predict does, on test images of the run."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cxr.data.batches import to_unit
from cxr.data.decode import UNREADABLE, Reading, read_grey, to_square
from cxr.data.phantom import draw_phantom
from cxr.errors import UserError
from cxr.files.run_folder import AUDIT, SPLIT
from cxr.files.writing import read_json, read_table
from cxr.jobs.members import Networks, Unknown, run_of
from cxr.models.ensemble import Ensemble
from cxr.models.exported import Exported

IMAGES = 20
EQUAL = 1e-4  # how far probabilities may be from those of cxr.predict, for images of the networks' size
ALIKE = 0.01  # for others, where the resizing in the file may round otherwise than Pillow does
READING = Reading(dicom_patient="ignore", dicom_unknown_parts="keep")

Row = Mapping[str, str]


def images_to_compare(networks: Networks) -> tuple[list[np.ndarray], str]:
    """Up to IMAGES images, uint8 (H, W) each, and which ones: test images of the first network's run or, where its run
    folder or their files are not there, drawn ones."""
    size = max(networks.model.sizes)
    try:
        return [image for _, image in images_of_run(networks, "test", IMAGES)], "test images of its run"
    except Unknown as why:
        with tempfile.TemporaryDirectory(prefix="cxr-export-") as folder:
            draw_phantom(Path(folder), images=2 * IMAGES)
            rows = [{"file": str(file)} for file in sorted(Path(folder).glob("*/*/*"))]
            return [image for _, image in read_some(Path(folder), rows, IMAGES, size)], f"drawn ones: {why}"


def images_of_run(networks: Networks, split: str, most: int, squares: bool = False) -> list[tuple[Row, np.ndarray]]:
    """Up to so many images of a split of the first network's run: their rows of split.csv, and uint8 (H, W) each, or
    as squares of the largest of the networks' sizes.

    Raises:
        Unknown: its run folder or the files of the images are not there.
    """
    run = run_of(networks.checkpoints[0], networks.model.classes, (SPLIT, AUDIT))
    root = Path(read_json(run / AUDIT)["root"])
    rows, size = [row for row in read_table(run / SPLIT) if row["split"] == split], max(networks.model.sizes)
    some = read_some(root, rows, most, size)
    if images := [(row, as_squares([image], size)[0] if squares else image) for row, image in some]:
        return images
    raise Unknown(f"the {split} images of {run} are not in {root}")


def read_some(root: Path, rows: Sequence[Row], most: int, size: int) -> Iterator[tuple[Row, np.ndarray]]:
    """Images that are spread evenly over all rows, without those that cannot be read."""
    for number in np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int)):
        try:
            yield rows[number], np.asarray(read_grey(root / rows[number]["file"], size, READING)[0])
        except UNREADABLE:
            continue


def check_export(exported: Exported, model: Ensemble, images: Sequence[np.ndarray]) -> tuple[float, float]:
    """How far an exported file's probabilities are at most from the model's: for images of the largest of the networks'
    sizes, all as one batch, and for images of their own sizes, one by one.

    Raises:
        UserError: its class names differ, or its probabilities do so by more than EQUAL or ALIKE, or in the class.
    """
    if exported.classes != model.classes:
        raise UserError(
            f"the exported file has the classes {', '.join(exported.classes)}, not {', '.join(model.classes)}; "
            "nothing is written"
        )
    # A network of another size needs resizing here too.
    tolerance = EQUAL if len(model.sizes) == 1 else ALIKE
    of_squares = difference(exported, model, as_squares(images, max(model.sizes)), tolerance)
    return of_squares, max(difference(exported, model, image[None], ALIKE) for image in images)


def difference(exported: Exported, model: Ensemble, images: np.ndarray, tolerance: float) -> float:
    """The largest difference of probabilities, of images uint8 (B, H, W). UserError where it is above the tolerance, or
    where the classes differ that clearly lead, by more than the tolerance."""
    theirs = exported.probabilities(images[:, None].astype(np.float32))
    batch = {size: to_unit(torch.from_numpy(as_squares(images, size))[:, None]) for size in model.sizes}
    ours = model.probabilities(batch)
    far = float(abs(ours - theirs).max()) if ours.shape == theirs.shape else np.inf
    second, first = np.sort(ours, axis=1)[:, -2:].T
    clear = first - second > tolerance
    if not far <= tolerance or (ours.argmax(1) != theirs.argmax(1))[clear].any():  # NaN is not close either
        height, width = images.shape[1:]
        raise UserError(
            f"the exported file does not predict as cxr.predict does: from an image of {width}x{height} pixels, a "
            f"probability differs by {far:.2g} (at most {tolerance:g}), or the class does; nothing is written"
        )
    return far


def as_squares(images: Sequence[np.ndarray] | np.ndarray, size: int) -> np.ndarray:
    """Images, uint8 (H, W) each, as cxr.predict hands them to a network of a size: uint8 (B, size, size)."""
    return np.stack([to_square(Image.fromarray(image), size) for image in images])
