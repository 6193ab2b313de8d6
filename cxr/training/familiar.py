"""What a trained network is familiar with, kept beside its checkpoint; see cxr.evaluation.familiarity."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cxr.data.batches import to_unit
from cxr.data.datamodule import CXRDataModule
from cxr.errors import UserError
from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.familiarity import SAMPLE, Familiar, learn_familiar, mean_unfamiliar
from cxr.files.run_folder import FAMILIAR
from cxr.files.writing import replacing
from cxr.models.classifier import Classifier
from cxr.models.features import joined, kept_features, thumbnails


@torch.no_grad()
def features_of(model: Classifier, data: CXRDataModule, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features (n, D) and thumbnails (n, T) of the images in some rows of the table, float32."""
    small: list[torch.Tensor] = []
    batch = data.data["batch_size"]
    with kept_features(model.net) as features:
        for start in range(0, len(rows), batch):
            part = torch.from_numpy(data.store[rows[start : start + batch]])[:, None]
            images = to_unit(part.to(model.device))
            model(images)
            small.append(thumbnails(images).cpu())
    return joined(features, len(rows)).cpu().numpy(), torch.cat(small).numpy()


def learn_from(model: Classifier, data: CXRDataModule) -> Familiar | None:
    """What the network of a checkpoint is familiar with: some of its training images, and how far validation images
    are from them; None where there are no validation images."""
    train, val = data.rows("train"), data.rows("val")
    if not len(val):
        return None
    return learn_familiar(features_of(model, data, sample_of(train)), features_of(model, data, val))


def sample_of(train: np.ndarray) -> np.ndarray:
    """Which of the training images (n,), in the table's order, are kept."""
    return np.sort(np.random.default_rng(0).permutation(train)[:SAMPLE])


def keep_familiar(
    model: Classifier,
    data: CXRDataModule,
    test: Evaluation,
    features: np.ndarray | None,
    path: Path,
    device: torch.device,
) -> dict[str, Any] | None:
    """Write what a network is familiar with beside its checkpoint.

    Args:
        test, features: predict_with_features() of the test images.
        device: where to compute; the network returns to its own.

    Returns:
        The part "unfamiliar" of metrics.json, see unfamiliar_figures(). None without validation images.
    """
    home = model.device
    familiar = learn_from(model.to(device), data)
    model.to(home)
    if familiar is None:
        return None
    write_familiar(path, familiar)
    return unfamiliar_figures(mean_unfamiliar([unfamiliar_images([familiar], [features], data, test.index)]))


def unfamiliar_images(
    familiar: Sequence[Familiar], features: Sequence[np.ndarray | None], data: CXRDataModule, rows: np.ndarray
) -> np.ndarray:
    """How unfamiliar the images in some rows of the table are, the mean over networks, by what each is familiar with
    and the features (n, D) that it has of them (None without any): float (n,)."""
    small = thumbnails_at(data, rows)
    nothing = np.zeros((len(rows), 0))
    each = [of.unfamiliar(nothing if f is None else f, small) for of, f in zip(familiar, features, strict=True)]
    return np.mean(each, axis=0)


def unfamiliar_figures(unfamiliar: np.ndarray) -> dict[str, Any]:
    """How many "images" of n, float (n,), are unlike the training images, and their "share"."""
    return {"images": int((unfamiliar > 1).sum()), "share": float((unfamiliar > 1).mean())}


def thumbnails_at(data: CXRDataModule, rows: np.ndarray) -> np.ndarray:
    """Thumbnails (n, T) of the images in some rows of the table, float32."""
    batches = np.array_split(rows, -(-len(rows) // data.data["batch_size"]))
    parts = [thumbnails(to_unit(torch.from_numpy(data.store[part])[:, None])) for part in batches]
    return torch.cat(parts).numpy()


def familiar_path(checkpoint: Path) -> Path:
    """The file beside a checkpoint that says what its network is familiar with. It has the checkpoint's name, since
    last.ckpt is another network than best.ckpt."""
    return checkpoint.with_suffix(FAMILIAR)


def write_familiar(path: Path, familiar: Familiar) -> None:
    """Write what a network is familiar with beside its checkpoint."""
    with replacing(path, "wb") as file:
        np.savez(file, **familiar._asdict())


def read_familiar(path: Path) -> Familiar | None:
    """What the network of a checkpoint beside it is familiar with; None if the file is missing. Raises UserError if it
    is damaged."""
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:  # a pickle is a program
            familiar = Familiar(*(file[name] for name in Familiar._fields))
        number = len(familiar.features)
        shapes = familiar.features.ndim, familiar.thumbnails.shape[:1], familiar.limits.shape
        if shapes != (2, (number,), (2,)) or not number or any(part.dtype.kind != "f" for part in familiar):
            raise ValueError("shapes")
        return familiar
    except Exception as error:  # a damaged or hostile file can make NumPy raise anything
        raise UserError(f"{path}: damaged, or not what cxr wrote beside a checkpoint") from error
