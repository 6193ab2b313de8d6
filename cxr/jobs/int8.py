"""An 8-bit version of an exported file, written only if test images show that it classifies as well as in fp32."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr.errors import UserError
from cxr.evaluation.differences import FIGURES, paired_difference
from cxr.jobs.export_check import Row, images_of_run
from cxr.jobs.members import Networks, Unknown
from cxr.models.exported import Exported, from_content, with_metadata
from cxr.models.quantizing import quantize

CALIBRATION = 200  # training images, from which the ranges of the activations come
TEST = 2000  # test images at most
LOSS = 0.01  # of macro F1 and accuracy that 8 bits may cost, at the lower end of the 95 % interval
BATCH = 64


def in_int8(content: bytes, about: Mapping[str, Any], exported: Exported, networks: Networks) -> tuple[bytes, str]:
    """The content of an ONNX file in 8 bits, and a line that compares both on the test images of the run.

    Args:
        about: its metadata. The screening thresholds are dropped: they hold for the fp32 probabilities only.
        exported: the same file in fp32, open.

    Raises:
        UserError: the images are not there, or the difference may be more than LOSS.
    """
    try:
        _, training = read(networks, "train", CALIBRATION)
        rows, images = read(networks, "test", TEST)
    except Unknown as why:
        raise UserError(f"int8=true: needs training and test images of the run: {why}") from why
    content = quantize(content, training)
    ours, theirs = probabilities(from_content(content), images), probabilities(exported, images)
    labels = np.array([exported.classes.index(row["label"]) for row in rows])
    group = np.array([int(row["group"]) for row in rows])
    compared = paired_difference(labels, group, [ours.argmax(1)], [theirs.argmax(1)], len(exported.classes))
    far = float(abs(ours - theirs).max())
    line = f"int8 changes {in_words(compared)} on {len(rows):,} test images of its run"
    if min(compared[key]["ci95"][0] for key in FIGURES) < -LOSS:
        raise UserError(
            f"int8=true: nothing is written: {line}, and these images do not show that it costs at most {LOSS} (the "
            "lower ends); leave int8=true out"
        )
    line += f", and probabilities by at most {far:.2g}; its file is without screening thresholds"
    less = {"test_images": len(rows), "probabilities": far, **compared}
    return with_metadata(content, {**about, "precision": "int8", "screening": {}, "int8_less_fp32": less}), line


def read(networks: Networks, split: str, most: int) -> tuple[Sequence[Row], np.ndarray]:
    """images_of_run() as an exported file takes them, float32 (B, 1, S, S), and their rows."""
    rows, images = zip(*images_of_run(networks, split, most, squares=True), strict=True)
    return rows, np.stack(images)[:, None].astype(np.float32)


def probabilities(exported: Exported, images: np.ndarray) -> np.ndarray:
    """Probabilities, float32 (N, C), of images float32 (N, 1, S, S), BATCH at a time."""
    parts = [exported.probabilities(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    return np.concatenate(parts)


def in_words(compared: Mapping[str, Any]) -> str:
    """Both differences with their intervals."""
    texts = {
        key: f"{of['difference']:+.4f} [{of['ci95'][0]:+.4f}, {of['ci95'][1]:+.4f}]" for key, of in compared.items()
    }
    return f"macro F1 by {texts['f1_macro']} and accuracy by {texts['accuracy']}"
