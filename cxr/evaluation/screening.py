"""One class as a screening test: a threshold chosen on validation images, and its performance on test images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import binom

from cxr.evaluation.exact_intervals import share_over_groups

# Minimal requirements of a triage test for tuberculosis: WHO 2014, High-priority target product profiles for new
# tuberculosis diagnostics.
WHO = {"sensitivity": 0.9, "specificity": 0.7}
PREVALENCES = (0.005, 0.01, 0.05)  # of the class among those who are screened


def choose_threshold(score: np.ndarray, group: np.ndarray, sensitivity: float, confidence: float) -> dict[str, Any]:
    """The highest threshold that promises a sensitivity: with this confidence, at least this share of the patients who
    have the class reach it.

    It is a tolerance limit (Wilks 1941, Determination of sample sizes for setting tolerance limits): the k-th lowest of
    n patients' scores. Let a share p of all patients score at most q, the highest score that the asked share of them
    reach; p is at least 1 − sensitivity, and larger where scores are tied (Scheffé & Tukey 1945). The threshold is too
    high only where it exceeds q, that is, where fewer than k of the n patients score at most q. This has a probability
    of at most P(Binomial(n, 1 − sensitivity) < k), whatever the distribution of the scores; k is the largest for which
    that is at most 1 − confidence.

    Images of one patient are not independent, so each patient counts once, with the lowest score: as reached only if
    all of the images reach the threshold.

    Args:
        score: float (N,), of images of the class, N > 0.
        group: (N,), equal for images that are not independent; see intervals.intervals().

    Returns:
        The keys "sensitivity_asked" to "threshold" of screening. "promised" is false where there are fewer patients
        than needed; the threshold is then the lowest score, which all images reach.
    """
    lowest = lowest_scores(score, group)
    needed = patients_needed(sensitivity, confidence)
    too_high = binom.cdf(np.arange(len(lowest)), len(lowest), 1 - sensitivity)  # for k = 1, …, n
    k = max(1, int((too_high <= 1 - confidence).sum()))
    return {
        "sensitivity_asked": sensitivity,
        "confidence": confidence,
        "val_patients": len(lowest),
        "patients_needed": needed,
        "promised": len(lowest) >= needed,
        "threshold": float(lowest[k - 1]),
    }


def lowest_scores(score: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The lowest of the scores (N,) in each group (N,), in ascending order: (G,)."""
    order = np.argsort(score, kind="stable")
    first = np.unique(group[order], return_index=True)[1]
    return score[order][np.sort(first)]


def patients_needed(sensitivity: float, confidence: float) -> int:
    """The fewest patients whose lowest score promises a sensitivity: n with sensitivity ** n ≤ 1 − confidence."""
    return int(np.ceil(np.log1p(-confidence) / np.log(sensitivity)))


def operating_point(positive: np.ndarray, score: np.ndarray, group: np.ndarray, threshold: float) -> dict[str, Any]:
    """Sensitivity and specificity of `score >= threshold`, None without images; each with its exact interval.

    Args:
        positive: bool (N,), images of the class. score: float (N,). group: (N,), see intervals.intervals().
    """
    called = score >= threshold
    sides = {"sensitivity": (called[positive], group[positive]), "specificity": (~called[~positive], group[~positive])}
    return {
        **{key: float(hits.mean()) if len(hits) else None for key, (hits, _) in sides.items()},
        "ci95": {key: share_over_groups(*side) for key, side in sides.items()},
        "positive_images": int(positive.sum()),
        "negative_images": int((~positive).sum()),
    }


def keeping_threshold(positive: np.ndarray, score: np.ndarray, group: np.ndarray, sensitivity: float) -> dict[str, Any]:
    """The highest threshold that at least this share of the images of the class reach, and the operating_point() there.
    It is chosen on these images: what a threshold could have done, not what to expect of it.

    Args:
        positive: bool (N,), one true at least. score: float (N,). group: (N,), see intervals.intervals().
    """
    reached = np.sort(score[positive])[::-1]
    threshold = float(reached[max(1, int(np.ceil(sensitivity * len(reached) - 1e-9))) - 1])
    return {"kept": sensitivity, "threshold": threshold, **operating_point(positive, score, group, threshold)}


def screening(chosen: Mapping[str, Any], test: Mapping[str, Any]) -> dict[str, Any]:
    """The part "screening" of metrics.json.

    Args:
        chosen: its keys before "test": "class", choose_threshold(), and "val", the operating_point() of the validation
            images. (Those after it are replaced.)
        test: the operating_point() of the test images.
    """
    return {
        **chosen,
        "test": dict(test),
        "who": {**WHO, "verdict": verdict(test)},
        "prevalences": [predictive_values(test, p) for p in PREVALENCES],
    }


def screening_parts(screenings: Mapping[str, Any], every_class: bool) -> dict[str, Any]:
    """The parts "screening", of one class (None where it has none), and, only where every class is screened for,
    "screenings", by class."""
    if every_class:
        return {"screening": None, "screenings": dict(screenings)}
    return {"screening": next(iter(screenings.values()), None)}


def screenings_of(parts: Mapping[str, Any]) -> Mapping[str, Any]:
    """By class, what screening_parts() has put in metrics.json or evaluation.json."""
    one = parts["screening"]
    return parts.get("screenings", {one["class"]: one} if one else {})


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


def reweighted(probability: float, prior: float, prevalence: float) -> float:
    """The probability of a class where it has another prevalence than among the training images: Bayes' theorem, with
    the images of each class as they are there (Saerens, Latinne & Decaestecker 2002, Adjusting the outputs of a
    classifier to new a priori probabilities).

    Args:
        probability: calibrated for the training images.
        prior: the share of the class among these, between 0 and 1.
        prevalence: between 0 and 1.
    """
    present = probability * prevalence / prior
    absent = (1 - probability) * (1 - prevalence) / (1 - prior)
    return present / (present + absent)
