"""The parts of metrics.json about hospitals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cxr.data.datamodule import CXRDataModule
from cxr.data.hospitals import hospitals_of
from cxr.data.shortcuts import SIZE_AND_BORDER, file_facts, thumbnails_of
from cxr.data.store import Store
from cxr.evaluation.by_hospital import scores_by_hospital, within_hospitals
from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.gap_parts import gap_parts
from cxr.evaluation.hospital_probe import hospital_probe
from cxr.evaluation.transfer import of_common_classes, transfer


def hospital_figures(data: CXRDataModule, tested: Mapping[str, tuple[Evaluation, np.ndarray | None]]) -> dict[str, Any]:
    """The part "hospitals": how classes and hospitals go together; where hospitals are known, the score "within"
    hospitals (else None), the "scores" by hospital, and what the hospital is "predicted_by", and how well.

    Args:
        tested: the predictions and the network's features of the split "test" and, if a hospital is held out, "inside".
    """
    hospital, (test, _) = hospitals_of(data.images), tested["test"]
    if hospital is None:
        return {**data.confounding(), "within": None, "scores": {}, "predicted_by": {}}
    of_test = hospital[test.index]
    evaluations, by_split = zip(*tested.values(), strict=True)
    rows, labels, group = (
        np.concatenate([getattr(of, name) for of in evaluations]) for name in ("index", "labels", "group")
    )
    features = np.concatenate(by_split) if all(of is not None for of in by_split) else None
    return {
        **data.confounding(),
        "within": within_hospitals(test.labels, test.logits, of_test, test.group),
        "scores": scores_by_hospital(test, of_test),
        "predicted_by": predicted_by(data.compared.select(rows), labels, hospital[rows], group, test.classes, features),
    }


def predicted_by(
    store: Store,
    labels: np.ndarray,
    hospital: np.ndarray,
    group: np.ndarray,
    classes: Sequence[str],
    features: np.ndarray | None = None,
) -> dict[str, Any]:
    """hospital_probe() of n images by their size and border, by thumbnails and, if they are given, by a network's
    features (n, D). Without those that cannot be probed. `store` has these images; all else as for hospital_probe()."""
    sources = {"size_and_border": file_facts(store)[:, SIZE_AND_BORDER], "thumbnails": thumbnails_of(store)}
    if features is not None:
        sources["features"] = features
    probes = {name: hospital_probe(source, labels, hospital, group, classes) for name, source in sources.items()}
    return {name: probe for name, probe in probes.items() if probe}


def transfer_figures(data: CXRDataModule, inside: Evaluation | None, test: Evaluation) -> dict[str, Any] | None:
    """The part "transfer" of metrics.json, where a hospital is held out: its name, the "hospitals" inside with their
    scores, "inside" and "difference", see transfer(), and gap_parts(). "not_learnt": classes that it alone has, and
    their images."""
    if not inside:
        return None
    hospital = hospitals_of(data.images)
    name = str(data.data["hold_out"])
    common = of_common_classes(inside, test)
    figures, difference = transfer(common, test)
    outside = np.bincount(data.images.label[hospital == name], minlength=len(test.classes))
    outside[data.images.label[data.rows("train")]] = 0  # leaves the classes that no network could learn
    return {
        "hold_out": name,
        "hospitals": scores_by_hospital(inside, hospital[inside.index]),
        "inside": figures,
        "difference": difference,
        "gap_parts": gap_parts(common, test),
        "not_learnt": {of: n for of, n in zip(test.classes, outside.tolist(), strict=True) if n},
    }
