"""Shortcuts: three simple rules that a network must beat (most frequent class, size and brightness, nearest thumbnail).

In this field, source and class often coincide: an image's size, border or brightness then gives the class away
(DeGrave, Janizek & Lee 2021; Maguolo & Nanni 2021). Each rule is fitted on the training images and predicts others.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from cxr.data.cache import built, fingerprint
from cxr.data.copies import THUMBNAIL, shrink
from cxr.data.store import Store
from cxr.files.writing import replacing

BORDER = 0.05  # of a side
SIZE_AND_BORDER = [0, 1, 2, 3, *range(6, 14)]  # of file_facts(): all but the mean and spread of an image
SAMPLE = 300  # images of a class that told_apart() uses
FOLDS, COMPONENTS = 5, 50  # of cross_predict()
VERSION = 1  # raise when these rules predict something else


def load_shortcuts(
    store: Store, labels: np.ndarray, train: np.ndarray, test: np.ndarray, cache: Path
) -> dict[str, np.ndarray]:
    """shortcut_predictions(), computed once for each set of images and split."""
    files = store.facts["sha256"].tolist(), store.reading.negatives
    inputs = *files, labels.tolist(), train.tolist(), test.tolist()

    def build(folder: Path) -> None:
        with replacing(folder / "predictions.npz", "wb") as file:
            np.savez(file, **shortcut_predictions(store, labels, train, test))

    with built(cache / f"shortcuts-{fingerprint(VERSION, *inputs)}", build) as folder:
        return dict(np.load(folder / "predictions.npz"))


def shortcut_predictions(
    store: Store, labels: np.ndarray, train: np.ndarray, test: np.ndarray
) -> Mapping[str, np.ndarray]:
    """Predictions of three rules, fitted on the images `train` (n,), for the images `test` (m,), rows of the table.

    Returns:
        Labels (m,) under "majority_class", "file_facts" (logistic regression on format, size, shape, brightness and
        border of an image) and "nearest_neighbour" (on thumbnails, 32 × 32).
    """
    from sklearn.linear_model import LogisticRegression  # these take a second
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    facts = file_facts(store)
    thumbnails = thumbnails_of(store)
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(facts[train], labels[train])
    nearest = KNeighborsClassifier(1, algorithm="brute").fit(thumbnails[train], labels[train])
    return {
        "majority_class": np.full(len(test), np.bincount(labels[train]).argmax()),
        "file_facts": regression.predict(facts[test]),
        "nearest_neighbour": nearest.predict(thumbnails[test]),
    }


def told_apart(labels: np.ndarray, store: Store, group: np.ndarray, rows: np.ndarray) -> dict[tuple[int, int], float]:
    """How well format, size and border of the images, which say nothing about lungs, tell each two classes apart.

    Args:
        labels: int64 (n,), of the images `rows` (n,) of the store's N.
        group: (N,), equal for images that are not independent.

    Returns:
        By pair of classes, the balanced accuracy of a logistic regression in five-fold cross-validation by group, on
        up to SAMPLE images of each class. A class needs images of ten groups.
    """
    from sklearn.metrics import balanced_accuracy_score

    rng, of_class = np.random.default_rng(0), {}
    for label in np.unique(labels).tolist():
        members = rng.permutation(rows[labels == label])[:SAMPLE]
        if len(np.unique(group[members])) >= 2 * FOLDS:
            of_class[label] = members
    facts = {label: file_facts(store.select(members))[:, SIZE_AND_BORDER] for label, members in of_class.items()}
    accuracies = {}
    for a, b in combinations(of_class, 2):
        truth = np.repeat([a, b], [len(facts[a]), len(facts[b])])
        of_both = np.concatenate([group[of_class[a]], group[of_class[b]]])
        predicted = cross_predict(np.concatenate([facts[a], facts[b]]), truth, of_both)
        accuracies[a, b] = float(balanced_accuracy_score(truth, predicted))
    return accuracies


def cross_predict(features: np.ndarray, truth: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Predictions (n,) of `truth` (n,) from features (n, D), in cross-validation by group (n,): logistic regression on
    up to COMPONENTS principal components."""
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    components = min(COMPONENTS, features.shape[1], len(features) // 2)
    model = make_pipeline(
        StandardScaler(), PCA(components, random_state=0), LogisticRegression(max_iter=1000, class_weight="balanced")
    )
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0)
    return cross_val_predict(model, features, truth, groups=group, cv=folds)


def thumbnails_of(store: Store) -> np.ndarray:
    """The images 32 pixels wide: float32 (N, 1024)."""
    thumbnails = np.empty((len(store), THUMBNAIL**2), dtype=np.float32)
    for rows, images in store.parts():
        thumbnails[rows] = shrink(torch.from_numpy(images), THUMBNAIL).flatten(1).numpy()
    return thumbnails


def file_facts(store: Store) -> np.ndarray:
    """Format, size, shape, mean, spread and border of each image: float64 (N, 14)."""
    facts, edge = store.facts, max(1, round(BORDER * store.size))
    columns = []
    for images in (part.astype(np.float32) for _, part in store.parts()):
        sides = [images[:, :edge], images[:, -edge:], images[:, :, :edge], images[:, :, -edge:]]
        columns.append(
            [images.mean((1, 2)), images.std((1, 2)), *(f(s, axis=(1, 2)) for s in sides for f in (np.mean, np.std))]
        )
    brightness = np.concatenate([np.stack(part, axis=1) for part in columns])
    about = np.stack(
        [facts["format"] == "PNG", np.log(facts["width"]), np.log(facts["height"]), facts["width"] / facts["height"]],
        axis=1,
    )
    return np.concatenate([about, brightness], axis=1)
