"""The networks of a choice, ready to predict, and what their run folders tell about them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cxr.evaluation.screening import screenings_of
from cxr.files.run_folder import CONFIG, METRICS, SPLIT
from cxr.files.writing import read_json, read_table
from cxr.jobs.members import Networks, find_run, load_networks
from cxr.models.ensemble import Ensemble
from cxr.serving.choices import Choice


class Loaded(NamedTuple):
    """The networks of a choice.

    Attributes:
        networks: see load_networks().
        metrics: metrics.json of each network's run, by its folder; without runs whose folder does not tell.
        priors: the share of each class among the images that the probabilities are for; empty where that is not known.
    """

    networks: Networks
    metrics: Mapping[str, Mapping[str, Any]]
    priors: Mapping[str, float]

    @property
    def model(self) -> Ensemble:
        return self.networks.model

    @property
    def alone(self) -> Mapping[str, Any]:
        """metrics.json of the only network; empty of several, whose runs tell nothing of all together."""
        return next(iter(self.metrics.values()), {}) if len(self.networks.checkpoints) == 1 else {}

    @property
    def screenings(self) -> Mapping[str, Any]:
        """The tested screening thresholds of the only network, by class."""
        tested = screenings_of(self.alone) if "screening" in self.alone else {}
        return {name: of for name, of in tested.items() if None not in (of["test"][key] for key in MEASURED)}


NEEDED = (SPLIT, CONFIG)
MEASURED = ("sensitivity", "specificity")
MOST_APART = 0.05  # shares of a class: splits by another seed differ by less, classes weighted equally by more


def load_choice(choice: Choice, accelerator: str) -> Loaded:
    """Load the networks of a choice. Raises UserError as load_networks() does."""
    networks = load_networks(choice.paths, accelerator)
    classes = networks.model.classes
    runs = [run for path in networks.checkpoints if (run := find_run(path, classes, NEEDED))]
    return Loaded(
        networks,
        {str(run): read_json(run / METRICS) for run in runs},
        shared_priors([priors_of(run, classes) for run in runs] if len(runs) == len(networks.checkpoints) else []),
    )


def shared_priors(each: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The shares of the classes for the mean of some networks' probabilities; empty where they differ much, or those of
    one are not known."""
    if not each or not all(each):
        return {}
    shares = np.array([[*priors.values()] for priors in each])
    alike = np.ptp(shares, axis=0).max() <= MOST_APART
    return dict(zip(each[0], shares.mean(0).tolist(), strict=True)) if alike else {}


def priors_of(run: Path, classes: Sequence[str]) -> dict[str, float]:
    """The share of each class among the images that the probabilities of a run's network are for: its training images
    or, where it weighted all classes equally, the same for each. Empty if a class has no training image."""
    from omegaconf import OmegaConf

    counts = Counter(row["label"] for row in read_table(run / SPLIT) if row["split"] == "train")
    if any(not counts[name] for name in classes):
        return {}
    config = OmegaConf.load(run / CONFIG)
    if "balanced" in (OmegaConf.select(config, "loss.weights"), OmegaConf.select(config, "data.sampler")):
        return dict.fromkeys(classes, 1 / len(classes))
    total = sum(counts[name] for name in classes)
    return {name: counts[name] / total for name in classes}
