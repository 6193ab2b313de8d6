"""What TensorBoard shows of a run besides Lightning's own scalars."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pytorch_lightning.loggers import TensorBoardLogger

from cxr.data.datamodule import CXRDataModule
from cxr.errors import printable
from cxr.files.run_folder import HEADLINES
from cxr.reporting import figures
from cxr.reporting.console import reliability_names, with_interval


def show_images(logger: TensorBoardLogger, data: CXRDataModule) -> None:
    """Class counts, and the same images before and after augmentation."""
    before, after, rows = data.examples(8)
    names = [data.images.classes[i] for i in data.images.label[rows]]
    board = logger.experiment
    board.add_figure("data/class_counts", figures.class_counts(data.counts(), note=data.note))
    title = "training images before and after augmentation, as the first epoch sees them"
    board.add_figure("data/augmentation", figures.before_after(before, after, names, title, note=data.note))


def show_evaluation(
    logger: TensorBoardLogger,
    data: CXRDataModule,
    side: str,
    scores: Mapping[str, Any],
    predicted: tuple[np.ndarray, np.ndarray, np.ndarray],
    classes: Sequence[str],
    step: int,
) -> None:
    """Confusion matrix, precision-recall curves and worst mistakes of an evaluation.

    Args:
        side: "val", "test" or "external".
        scores: as in metrics.json.
        predicted: rows of the table (N,), labels (N,) and probabilities (N, C).
        classes: those that the network knows.
        step: the optimizer step of the checkpoint that was evaluated.
    """
    index, labels, probabilities = predicted
    board, note = logger.experiment, data.note
    accuracy, f1 = (with_interval(scores, key) for key in ("accuracy", "f1_macro"))
    title = f"{side}: accuracy {accuracy}, macro F1 {f1}, {len(labels)} images"
    matrix = figures.confusion_matrix(np.array(scores["confusion_matrix"]), classes, title, note=note)
    board.add_figure(f"{side}/confusion_matrix", matrix, step)
    curves = figures.precision_recall(labels, probabilities, classes, f"{side}: precision and recall", note=note)
    board.add_figure(f"{side}/precision_recall", curves, step)

    predicted_class = probabilities.argmax(1)
    wrong = np.flatnonzero(predicted_class != labels)
    worst = wrong[np.argsort(-probabilities[wrong, predicted_class[wrong]])][:12]
    captions = [
        f"true {classes[labels[i]]}\n"
        f"predicted {classes[predicted_class[i]]} {probabilities[i, predicted_class[i]]:.2f}\n"
        f"{printable(data.images.file[index[i]]).rsplit('/', 1)[-1]}"
        for i in worst
    ]
    images = np.array(data.store[index[worst]])
    title = f"{side}: the {len(worst)} surest of {len(wrong)} mistakes among {len(labels)} images"
    picture = figures.captioned_images(images, captions, title, note=note, if_none="no mistakes")
    board.add_figure(f"{side}/worst_mistakes", picture, step)


def show_calibration(
    logger: TensorBoardLogger, data: CXRDataModule, side: str, calibration: Mapping[str, Any], step: int
) -> None:
    """Draw confidence against accuracy; `calibration` as in metrics.json."""
    title = f"{side}: confidence and accuracy"
    picture = figures.reliability(reliability_names(calibration), title, note=data.note)
    logger.experiment.add_figure(f"{side}/reliability", picture, step)


def show_choices(
    logger: TensorBoardLogger,
    choices: Mapping[str, Any],
    config: Mapping[str, Any],
    test: Mapping[str, Any],
    step: int,
) -> None:
    """The run's choices beside its final figures, for the HParams tab.

    Called once, with the finals: Lightning's own early call would leave a score of -1 there. Of the many other options,
    which config.yaml has, those go along that people ask for: the tab shows five columns, and cannot be scrolled well.
    """
    asked_for = {
        "data.batch_size": config["data"]["batch_size"],
        "data.image_size": config["data"]["image_size"],
        "data.split": config["data"]["split"],
        "optim.lr": config["optim"].get("lr", ""),
        "trainer.max_epochs": config["trainer"]["max_epochs"],
    }
    finals = {f"test/{key}": test[key] for key in (*HEADLINES, "auroc_macro")}
    finals |= {f"test_f1/{name}": s["f1"] for name, s in test["per_class"].items()}
    plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in {**asked_for, **choices}.items()}
    logger.log_hyperparams(plain, finals, step)
