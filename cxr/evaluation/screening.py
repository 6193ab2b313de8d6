"""One class as a screening test: a threshold chosen on validation images, and its performance on test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cxr.evaluation.intervals import exact_share

# Minimal requirements of a triage test for tuberculosis: WHO 2014, High-priority target product profiles for new
# tuberculosis diagnostics.
WHO = {"sensitivity": 0.9, "specificity": 0.7}
PREVALENCES = (0.005, 0.01, 0.05)  # of the class among those who are screened


def choose_threshold(positive: np.ndarray, score: np.ndarray, sensitivity: float) -> float:
    """The highest threshold that at least this share of the positive images reach.

    Args:
        positive: bool (N,), not all False. score: float (N,).
    """
    ordered = np.sort(score[positive])[::-1]
    return float(ordered[max(1, int(np.ceil(sensitivity * len(ordered) - 1e-9))) - 1])


def operating_point(positive: np.ndarray, score: np.ndarray, threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity of `score >= threshold`, with exact binomial intervals (Clopper & Pearson 1934); None
    without images."""
    called = score >= threshold
    hits = {"sensitivity": (called & positive).sum(), "specificity": (~called & ~positive).sum()}
    images = {"sensitivity": int(positive.sum()), "specificity": int((~positive).sum())}
    return {
        **{key: float(hits[key] / n) if n else None for key, n in images.items()},
        "ci95": {key: exact_share(int(hits[key]), n) for key, n in images.items()},
        "positive_images": images["sensitivity"],
        "negative_images": images["specificity"],
    }


def screening(
    name: str, sensitivity: float, threshold: float, val: Mapping[str, Any], test: Mapping[str, Any]
) -> dict[str, Any]:
    """The part "screening" of metrics.json: operating_point() of the validation images, on which the threshold was
    chosen, and of the test images, and what the latter means."""
    return {
        "class": name,
        "sensitivity_asked": sensitivity,
        "threshold": threshold,
        "val": dict(val),
        "test": dict(test),
        "who": {**WHO, "verdict": verdict(test)},
        "prevalences": [predictive_values(test, p) for p in PREVALENCES],
    }


def verdict(point: Mapping[str, Any]) -> str:
    """Whether an operating point meets the WHO's requirements: "met" (both intervals lie above), "missed" (one lies
    below) or "not shown" (neither: too few images)."""
    ends = point["ci95"]
    if all(ends[key][0] >= minimum for key, minimum in WHO.items()):
        return "met"
    return "missed" if any(ends[key][1] < minimum for key, minimum in WHO.items()) else "not shown"


def predictive_values(point: Mapping[str, Any], prevalence: float) -> dict[str, Any]:
    """Positive and negative predictive value at a prevalence, by Bayes' theorem: the share of those called positive
    who have the class, and of the others who do not. Each "ci95" goes from the lower ends of both intervals to the
    upper ends, which is wider than 95 % needs."""
    low, high = zip(*(point["ci95"][key] for key in ("sensitivity", "specificity")), strict=True)
    shares = (point["sensitivity"], point["specificity"])
    values = [dict(zip(("ppv", "npv"), bayes(*pair, prevalence), strict=True)) for pair in (shares, low, high)]
    ci95 = {key: [values[1][key], values[2][key]] for key in ("ppv", "npv")}
    return {"prevalence": prevalence, **values[0], "ci95": ci95}


def bayes(sensitivity: float | None, specificity: float | None, prevalence: float) -> tuple[float | None, float | None]:
    """PPV and NPV; None where no image is called positive (or negative), or a share is unknown."""
    if sensitivity is None or specificity is None:
        return None, None
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    cleared, missed = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    return (
        true / (true + false) if true + false else None,
        cleared / (cleared + missed) if cleared + missed else None,
    )
