"""One class as a screening test: a threshold chosen on validation images, and what it is worth on others."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr.evaluation.intervals import exact_share

# Minimal requirements of a triage test for tuberculosis: WHO 2014, High-priority target product profiles for new
# tuberculosis diagnostics.
WHO = {"sensitivity": 0.9, "specificity": 0.7}
PREVALENCES = (0.005, 0.01, 0.05)  # of the class among those who are screened


def choose_threshold(positive: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """The highest threshold that at least this share of the positive images reaches.

    Args:
        positive: bool (N,), not all False. score: float (N,).
    """
    ordered = np.sort(score[positive])[::-1]
    return float(ordered[max(1, int(np.ceil(sensitivity * len(ordered) - 1e-9))) - 1])


def operating_point(positive: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity of `score >= threshold`, with exact binomial intervals (Clopper & Pearson 1934); None
    of no images."""
    found = score >= threshold
    hits = {"sensitivity": (found & positive).sum(), "specificity": (~found & ~positive).sum()}
    images = {"sensitivity": int(positive.sum()), "specificity": int((~positive).sum())}
    return {
        **{key: float(hits[key] / n) if n else None for key, n in images.items()},
        "ci95": {key: exact_share(int(hits[key]), n) for key, n in images.items()},
        "positive_images": images["sensitivity"],
        "negative_images": images["specificity"],
    }


def screening(
    name: str, asked: float, threshold: float, val: Mapping[str, Any], test: Mapping[str, Any]
) -> dict[str, Any]:
    """The part "screening" of metrics.json: two operating_point()s, of the images that the threshold was chosen on and
    of the test images, and what the latter mean."""
    return {
        "class": name,
        "sensitivity_asked": asked,
        "threshold": threshold,
        "val": dict(val),
        "test": dict(test),
        "who": {**WHO, "verdict": verdict(test)},
        "prevalences": [predictive_values(test, p) for p in PREVALENCES],
    }


def verdict(point: Mapping[str, Any]) -> str:
    """Whether an operating point meets the WHO's requirements: "met" (both intervals lie above), "missed" (one lies
    below) or "not shown" (neither, with so few images)."""
    ends = point["ci95"]
    if all(ends[key][0] >= wanted for key, wanted in WHO.items()):
        return "met"
    return "missed" if any(ends[key][1] < wanted for key, wanted in WHO.items()) else "not shown"


def predictive_values(point: Mapping[str, Any], prevalence: float) -> dict[str, Any]:
    """Positive and negative predictive value at a prevalence, by Bayes' theorem: how many of those called positive have
    it, how many of the others have not. Their "ci95" reach from both intervals' lower ends to both upper ends: wider
    than 95 % would ask for."""
    low, high = zip(*(point["ci95"][key] for key in ("sensitivity", "specificity")), strict=True)
    own = (point["sensitivity"], point["specificity"])
    values = [dict(zip(("ppv", "npv"), bayes(*pair, prevalence), strict=True)) for pair in (own, low, high)]
    ci95 = {key: [values[1][key], values[2][key]] for key in ("ppv", "npv")}
    return {"prevalence": prevalence, **values[0], "ci95": ci95}


def bayes(sensitivity: float | None, specificity: float | None, prevalence: float) -> tuple[float | None, float | None]:
    """PPV and NPV; None where nobody is called positive (or negative), or a share is not known."""
    if sensitivity is None or specificity is None:
        return None, None
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    cleared, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return (
        true / (true + false) if true + false else None,
        cleared / (cleared + missed) if cleared + missed else None,
    )
