"""The training images most like an image, as the network sees them. They explain a refusal, or an answer, better than a
number; but they are images of other patients, so they are shown only on request and only on this machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cxr.data.batches import to_unit
from cxr.data.decode import Decoded
from cxr.data.fingerprints import read_fingerprints
from cxr.errors import UserError, printable
from cxr.evaluation.familiarity import centred, directions
from cxr.files.run_folder import SIDE_FILE, SPLIT
from cxr.files.writing import as_text, read_table
from cxr.jobs.members import find_run
from cxr.models.features import joined, kept_features, thumbnails
from cxr.serving.loaded import Loaded
from cxr.serving.pictures import data_url
from cxr.training.familiar import sample_of

SHOWN = 4


def can_show(loaded: Loaded) -> bool:
    """Whether there are training images to show: of one network alone, whose run folder has all that it takes."""
    first, *others = loaded.networks.checkpoints
    run = find_run(first, loaded.model.classes, [SPLIT])
    return not others and run is not None and first.with_name(SIDE_FILE).is_file() and bool(loaded.model.familiar)


def nearest_cases(loaded: Loaded, images: Sequence[Decoded], same_image: str) -> list[dict[str, Any]]:
    """The SHOWN nearest of the training images that are kept, nearest first: "file", "label" and "image" (a data URL).

    Args:
        images: the image in the network's size.
        same_image: the label of a case that is the very image, with {label} in it.

    Raises:
        UserError: the files of the run folder do not fit together.
    """
    checkpoint, (familiar,) = loaded.networks.checkpoints[0], loaded.model.familiar
    rows = [row for row in read_table(checkpoint.resolve().parent.parent / SPLIT) if row["split"] == "train"]
    kept = sample_of(np.arange(len(rows)))
    fingerprints = read_fingerprints(checkpoint.with_name(SIDE_FILE), "images")
    row_of = {as_text(file): row for row, file in enumerate(fingerprints["files"].tolist())}
    if len(kept) != len(familiar.features) or any(row["file"] not in row_of for row in rows):
        raise UserError(f"{checkpoint.parent}: {SIDE_FILE}, {SPLIT} and the network are not of one run")
    vector, others = compared(loaded, images[0])
    order = np.argsort(-(others.astype(np.float32) @ vector), kind="stable")[:SHOWN]
    cases = []
    for case in (rows[kept[number]] for number in order):
        row = row_of[case["file"]]
        same = fingerprints["sha256"][row] == images[0].sha256
        cases.append(
            {
                "file": printable(case["file"]),
                "label": same_image.format(label=case["label"]) if same else case["label"],
                "image": data_url(fingerprints["images"][row]),
            }
        )
    return cases


@torch.inference_mode()
def compared(loaded: Loaded, image: Decoded) -> tuple[np.ndarray, np.ndarray]:
    """An image as a vector (D,), and those of the kept training images (M, D), all of length 1: features or, of a
    network without any, thumbnails."""
    (member,), (familiar,) = loaded.model.members, loaded.model.familiar
    batch = to_unit(torch.from_numpy(image.pixels.copy())[None, None].to(member.device))
    if not familiar.features.shape[1]:
        return directions(centred(thumbnails(batch).cpu().numpy()))[0], familiar.thumbnails
    with kept_features(member.net) as features:
        member.probabilities(batch)
    return directions(joined(features, 1).cpu().numpy())[0], familiar.features
