"""Draw a set of chest images that is laid out like the reference set but shows nobody.

The images stand in for real ones wherever these cannot be had: in tests, in a first run, in a demonstration.
"""

import csv
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from cxr.data.phantom_chest import chest, expose, grid

# Images per folder in the reference set, with its spelling, which every reader has to cope with.
REFERENCE = {
    "train": {"COVID19": 485, "NORMAL": 1340, "PNEUMONIA": 3850, "TURBERCULOSIS": 650},
    "val": {"COVID19": 10, "NORMAL": 8, "PNEUMONIA": 8, "TURBERCULOSIS": 12},
    "test": {"COVID19": 81, "NORMAL": 231, "PNEUMONIA": 387, "TURBERCULOSIS": 41},
}
FEWEST = 2  # images in a folder: in a small set, the validation folders would be empty
STRADDLE = 10  # every so many test patients, one also stands in the training folder
SUFFIXES = ("jpeg", "jpg", "png")


class Drawing(NamedTuple):
    """One image to draw: where it goes, whose it is, and which of the patient's images it is (from 1)."""

    split: str
    label: str
    patient: int
    number: int
    file: str


def draw_phantom(root: Path, images: int = 600, seed: int = 0) -> None:
    """Write `images` images to `root/split/label/` and list them in `root/manifest.csv`.

    The same `seed` gives the same bytes. Every folder gets two images at least, even if that makes more.
    """
    plan = sorted(plan_images(images, seed), key=lambda image: (image.patient, image.number))
    for folder in {(root / image.file).parent for image in plan}:
        folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor() as pool:  # threads do: NumPy and Pillow let go of the lock while they compute
        list(pool.map(partial(write_image, root, seed), plan))  # a list, to hear of failures
    with (root / "manifest.csv").open("w", newline="") as out:
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(["file", "label", "patient", "split"])
        rows.writerows([image.file, image.label, f"drawn-{image.patient}", image.split] for image in plan)


def plan_images(images: int, seed: int) -> Iterator[Drawing]:
    """Deal images to folders in the reference's proportions, and to patients 1 to 4 at a time."""
    rng = np.random.default_rng(seed)
    total = sum(sum(labels.values()) for labels in REFERENCE.values())
    quota = {
        (split, label): max(FEWEST, round(images * count / total))
        for split, labels in REFERENCE.items()
        for label, count in labels.items()
    }
    # The largest folder evens out the rounding.
    quota["train", "PNEUMONIA"] = max(FEWEST, quota["train", "PNEUMONIA"] + images - sum(quota.values()))
    # Shuffled, so that a patient's number tells nothing. From 1, since seeds [s] and [s, 0] are the same.
    numbers = iter(rng.permutation(np.arange(1, sum(quota.values()) + 1)).tolist())
    trained: dict[str, list[int]] = {label: [] for label in REFERENCE["train"]}
    drawn: dict[int, int] = {}  # images by patient
    tested = 0
    for (split, label), left in quota.items():
        while left:
            patient = next(numbers)
            if split == "train":
                trained[label].append(patient)
            if split == "test":
                patient = patient if tested % STRADDLE else trained[label].pop()
                tested += 1
            count = min(left, int(rng.choice([1, 2, 3, 4], p=[0.55, 0.25, 0.12, 0.08])))
            left -= count
            for _ in range(count):
                number = drawn[patient] = drawn.get(patient, 0) + 1
                name = f"drawn{patient}-{number}.{rng.choice(SUFFIXES)}"
                yield Drawing(split, label, patient, number, f"{split}/{label}/{name}")


def write_image(root: Path, seed: int, image: Drawing) -> None:
    """Draw one image and save it; size and mode come from the image's own generator, whatever its label."""
    body = np.random.default_rng([seed, image.patient])  # again for every image: same patient, same anatomy
    shot = np.random.default_rng([seed, image.patient, image.number])
    short, aspect = shot.integers(160, 301), shot.uniform(0.85, 1.4)  # width by height
    width, height = round(short * max(1, aspect)), round(short * max(1, 1 / aspect))
    density = expose(chest(image.label, *grid(height, width, shot), body, shot), shot)
    picture = Image.fromarray((density * 255).astype(np.uint8)).convert(str(shot.choice(["L", "RGB"])))
    picture.save(root / image.file, quality=90)  # the quality is for JPEG; PNG ignores it
