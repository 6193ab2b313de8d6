"""The pictures of a run in TensorBoard: augmented images, confusion matrix, curves, worst mistakes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from pytorch_lightning.loggers import TensorBoardLogger

from cxr.data.copies import shrink
from cxr.data.datamodule import CXRDataModule
from cxr.errors import printable
from cxr.evaluation.evaluation import Evaluation
from cxr.files.run_folder import HEADLINES
from cxr.reporting import figures
from cxr.reporting.console import reliability_names
from cxr.reporting.heatmaps_in_words import heatmap_lines, heatmaps_failed
from cxr.reporting.hospitals_in_words import hospital_header, hospital_rows, lines_of_run
from cxr.reporting.markdown import inert, markdown_table, with_interval
from cxr.reporting.words import words

PROJECTED, SPRITE = 2000, 32  # images, and pixels of each: they share one picture of at most 8192 pixels
HEATMAPS = "heatmaps/"  # before the class in the tag of a panel


def show_counts(logger: TensorBoardLogger, data: CXRDataModule) -> None:
    """Images per class and split."""
    logger.experiment.add_figure("data/class_counts", figures.class_counts(data.counts(), note=data.note))


def show_augmentation(logger: TensorBoardLogger, data: CXRDataModule) -> None:
    """The same images before and after augmentation."""
    before, after, rows = data.examples(8)
    names = [data.images.classes[i] for i in data.images.label[rows]]
    title = "training images before and after augmentation, as the first epoch sees them"
    picture = figures.before_after(before, after, names, title, note=data.note)
    logger.experiment.add_figure("data/augmentation", picture)


def show_evaluation(
    logger: TensorBoardLogger, data: CXRDataModule, name: str, evaluation: Evaluation, step: int
) -> None:
    """Confusion matrix, precision-recall curves and worst mistakes of an evaluation.

    Args:
        name: val, test or external.
        step: the optimizer step of the checkpoint that was evaluated.
    """
    board, note = logger.experiment, data.note
    labels, probabilities = evaluation.labels, evaluation.probabilities
    classes, scores = evaluation.classes, evaluation.scores
    accuracy, f1 = (with_interval(scores, key) for key in ("accuracy", "f1_macro"))
    title = f"{name}: accuracy {accuracy}, macro F1 {f1}, {len(labels)} images"
    matrix = figures.confusion_matrix(np.array(scores["confusion_matrix"]), classes, title, note=note)
    board.add_figure(f"{name}/confusion_matrix", matrix, step)
    curves = figures.precision_recall(labels, probabilities, classes, f"{name}: precision and recall", note=note)
    board.add_figure(f"{name}/precision_recall", curves, step)
    board.add_figure(f"{name}/worst_mistakes", worst_mistakes(data, name, evaluation), step)


def worst_mistakes(data: CXRDataModule, name: str, evaluation: Evaluation) -> Figure:
    """The images that were predicted wrongly with the highest probability."""
    classes, labels, predicted = evaluation.classes, evaluation.labels, evaluation.predicted
    sure = evaluation.probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    worst = wrong[np.argsort(-sure[wrong])][:12]
    files = data.images.file[evaluation.index[worst]]
    captions = [
        f"true {classes[labels[i]]}\npredicted {classes[predicted[i]]} {sure[i]:.2f}\n"
        f"{printable(file).rsplit('/', 1)[-1]}"
        for i, file in zip(worst, files, strict=True)
    ]
    images = np.array(data.store[evaluation.index[worst]])
    title = f"{name}: the {len(worst)} most confident of {len(wrong)} mistakes among {len(labels)} images"
    return figures.captioned_images(images, captions, title, note=data.note, if_none="no mistakes")


def show_calibration(
    logger: TensorBoardLogger, data: CXRDataModule, side: str, calibration: Mapping[str, Any], step: int
) -> None:
    """Draw confidence against accuracy; `calibration` as in metrics.json."""
    title = f"{side}: confidence and accuracy"
    picture = figures.reliability(reliability_names(calibration), title, note=data.note)
    logger.experiment.add_figure(f"{side}/reliability", picture, step)


def show_hospitals(logger: TensorBoardLogger, metrics: Mapping[str, Any], step: int) -> None:
    """What hospitals do to the score, in words and as a table, for the Text tab; `metrics` as in metrics.json."""
    parts = lines_of_run(metrics)
    if rows := hospital_rows(metrics):
        parts.append(markdown_table(hospital_header(), rows))
    if parts:
        logger.experiment.add_text("test/hospitals", inert("\n\n".join(parts)), step)


def show_heatmaps(
    logger: TensorBoardLogger, tested: Mapping[str, Any] | None, panels: Mapping[str, Figure], step: int
) -> None:
    """The panel of each class, and the tests of the maps in the Text tab; `tested` as "heatmaps" in metrics.json."""
    for name, picture in panels.items():
        logger.experiment.add_figure(f"{HEATMAPS}{name}", picture, step)
    if tested:
        failed = [words("en")["heatmaps_fail"]] if heatmaps_failed(tested) else []
        logger.experiment.add_text("test/heatmaps", "\n\n".join([*failed, *heatmap_lines(tested)]), step)


def show_projector(
    logger: TensorBoardLogger, data: CXRDataModule, test: Evaluation, features: np.ndarray | None, step: int
) -> None:
    """Test images by the network's features, (N, D), in the Projector tab: thumbnails, labels and predictions, of at
    most PROJECTED. Nothing for a network without features."""
    if features is None:
        return
    rows = np.sort(np.random.default_rng(0).permutation(len(test))[:PROJECTED])
    images = torch.from_numpy(np.array(data.store[test.index[rows]]))
    files = [printable(file) for file in data.images.file[test.index[rows]]]
    labels, predicted = ([test.classes[i] for i in of[rows]] for of in (test.labels, test.predicted))
    names = list(zip(labels, predicted, files, strict=True))
    small = shrink(images, SPRITE)[:, None].expand(-1, 3, -1, -1) / 255
    logger.experiment.add_embedding(
        features[rows], names, small, step, "test", metadata_header=["label", "prediction", "file"]
    )


def show_choices(
    logger: TensorBoardLogger,
    choices: Mapping[str, Any],
    config: Mapping[str, Any],
    test: Mapping[str, Any],
    step: int,
) -> None:
    """The run's choices beside its final figures, for the HParams tab.

    Called once, with the final figures: Lightning's own early call would leave a score of -1 there. Of the many other
    options, which config.yaml has, only those that people ask for are added: the tab shows five columns, and cannot be
    scrolled well.
    """
    asked_for = {
        "data.batch_size": config["data"]["batch_size"],
        "data.image_size": config["data"]["image_size"],
        "data.split": config["data"]["split"],
        "optim.lr": config["optim"].get("lr", ""),
        "trainer.max_epochs": config["trainer"]["max_epochs"],
    }
    finals = {f"test/{key}": test[key] for key in (*HEADLINES, "auroc_macro") if test[key] is not None}
    finals |= {f"test_f1/{name}": s["f1"] for name, s in test["per_class"].items() if s["support"]}
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in {**asked_for, **choices}.items()}
    logger.log_hyperparams(plain, finals, step)
