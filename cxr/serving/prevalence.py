"""What an answer means where a class is as frequent as the reader says."""

from collections.abc import Mapping
from typing import Any

from cxr.data.class_names import NORMAL
from cxr.evaluation.screening import predictive_values, reweighted, screenings_of
from cxr.reporting.console import apart_from
from cxr.reporting.markdown import threshold_text
from cxr.reporting.words import Words
from cxr.serving.loaded import Loaded

# For a slider, which starts at START.
STEPS = (0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
START = 0.01


def at_prevalences(loaded: Loaded, probabilities: Mapping[str, float], w: Words, page: Words) -> dict[str, Any]:
    """What an answer means for a disease() at each of STEPS.

    Args:
        probabilities: of the image, by class.

    Returns:
        "title"; "withheld", why nothing can be said, or ""; "steps", for each prevalence its "text" and "lines";
        "start", the number of the first to show.
    """
    name = disease(loaded, probabilities)
    return {
        "title": page["prevalence_title"].format(name=name),
        "withheld": (why := withheld(loaded, name, w, page)),
        "steps": [] if why else [step(loaded, name, probabilities[name], p, page) for p in STEPS],
        "start": STEPS.index(START),
    }


def disease(loaded: Loaded, probabilities: Mapping[str, float]) -> str:
    """The class that the page looks at: of those that the networks' runs screen for, or else of all but NORMAL, the
    most probable one."""
    screened = [name for metrics in loaded.metrics.values() for name in screenings_of(metrics)]
    asked = [name for name in probabilities if name in screened] or [name for name in probabilities if name != NORMAL]
    return max(asked or probabilities, key=probabilities.__getitem__)


def withheld(loaded: Loaded, name: str, w: Words, page: Words) -> str:
    """Why nothing is said about another prevalence, or ""."""
    for metrics in loaded.metrics.values():
        if others := apart_from(metrics, name):
            return page["apart"].format(name=name, others=w["and"].join(others))
    return "" if loaded.priors and 0 < loaded.priors[name] < 1 else page["prior_unknown"]


def step(loaded: Loaded, name: str, probability: float, prevalence: float, page: Words) -> dict[str, Any]:
    """What an answer means at a prevalence: its text, and sentences."""
    prior = loaded.priors[name]
    here, there = certainty(reweighted(probability, prior, prevalence)), certainty(probability)
    lines = [page["reweighted"].format(name=name, here=here, there=there, prior=percent(prior))]
    if screening := loaded.screenings.get(name):
        called = probability >= screening["threshold"]
        values = predictive_values(screening["test"], prevalence)
        threshold = threshold_text(screening["threshold"])
        lines.append(page["called" if called else "not_called"].format(name=name, threshold=threshold))
        if not screening["promised"]:
            lines.append(page["no_promise"].format(**screening))
        key = "ppv" if called else "npv"
        if values[key] is not None:
            lines.append(page[key].format(name=name, share=percent(values[key]), ends=ends_text(values["ci95"][key])))
    elif len(loaded.networks.checkpoints) > 1:
        lines.append(page["no_threshold_together"])
    return {"text": percent(prevalence), "lines": lines}


def ends_text(ends: tuple[float | None, float | None]) -> str:
    """A 95 % interval of a share."""
    low, high = ("–" if end is None else percent(end) for end in ends)
    return f"[{low}, {high}]"


def certainty(probability: float) -> str:
    """A probability as a percentage; that a network never doubts is a matter of rounding."""
    return percent(min(max(probability, 1e-9), 1 - 1e-9))


def percent(share: float) -> str:
    """A share with as many digits as one needs to see that it is not 0 or 1."""
    if 0 < share < 0.0005:
        return "<\u00a00.1\u00a0%"
    return ">\u00a099.9\u00a0%" if 0.9995 <= share < 1 else f"{100 * share:.1f}\u00a0%"
