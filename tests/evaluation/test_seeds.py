"""Over seeds and patients: of two equal recipes, a difference is shown as seldom as promised; a true one is found."""

import numpy as np
import pytest
from scipy.stats import binomtest, t

from cxr.evaluation.components import Components, half_width, p_value, seeds_needed, variance_components
from cxr.evaluation.differences import mean_over_seeds, paired_difference

IMAGES = 300


def accuracies(seeds, deviation, sweeps, images=IMAGES, difference=0.0, rng=None):
    """The networks of two recipes of 85 % accuracy in many sweeps: right or wrong (sweeps, 2 × seeds, images).

    A fifth of the images is hard. Seeds differ by a standard deviation of accuracy, the recipes by a difference of it.
    """
    error = np.where(rng.random((sweeps, images)) < 0.2, 0.55, 0.05) / 0.15
    shift = rng.normal(0, deviation, (sweeps, 2, seeds)) + np.array([[difference / 2], [-difference / 2]])
    wrong = np.clip((0.15 - shift).reshape(sweeps, -1, 1) * error[:, None], 0, 1)
    return rng.random(wrong.shape, dtype=np.float32) >= wrong


def components_of(right, seeds):
    """The difference in accuracy of one sweep and its components; an accuracy's bootstrap has this exact limit."""
    points, images = right.mean(1), right.shape[1]
    centred = right - points[:, None]
    root = np.linalg.cholesky(centred @ centred.T / images**2 + 1e-12 * np.eye(len(points)))
    drawn = np.random.default_rng(0).standard_normal((400, len(points)))
    drawn = (drawn - drawn.mean(0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(drawn, rowvar=False))).T @ root.T
    return points[:seeds].mean() - points[seeds:].mean(), variance_components(points, drawn, seeds, images)


def share_shown(seeds, deviation, comparisons, sweeps, rng, **options):
    """How many of the sweeps show a difference, for each number of comparisons; how many intervals hold the true one;
    and, for the numbers of comparisons, how many a single Satterthwaite formula would show."""
    shown, naive, held = np.zeros(len(comparisons), int), np.zeros(len(comparisons), int), 0
    for part in range(0, sweeps, 100):
        for right in accuracies(seeds, deviation, min(100, sweeps - part), rng=rng, **options):
            difference, parts = components_of(right.astype(float), seeds)
            held += abs(difference - options.get("difference", 0)) <= half_width(parts, 0.05)
            for i, number in enumerate(comparisons):
                shown[i] += abs(difference) > half_width(parts, 0.05 / number)
                naive[i] += abs(difference) > satterthwaite(parts, 0.05 / number)
    return shown, naive, held


def satterthwaite(parts, alpha):
    of_seeds = [variance / n for variance, n in parts.seeds]
    total = parts.patients + sum(of_seeds)
    squares = parts.patients**2 / (parts.groups - 1)
    squares += sum(v**2 / (n - 1) for v, (_, n) in zip(of_seeds, parts.seeds, strict=True))
    return t.isf(alpha / 2, total**2 / squares) * total**0.5 if squares else 0.0


def at_most(hits, trials, nominal):
    """Whether the exact one-sided 99 % bound of a share of hits allows the nominal one."""
    return binomtest(hits, trials, nominal, alternative="greater").pvalue > 0.01


@pytest.mark.parametrize(("seeds", "deviation"), [(2, 0.03), (3, 0.0), (3, 0.05)])
def test_equal_recipes_seem_to_differ_as_seldom_as_promised(seeds, deviation):
    rng = np.random.default_rng(seeds)
    shown, _, held = share_shown(seeds, deviation, (1, 4), 1000, rng)
    assert at_most(shown[0], 1000, 0.05) and at_most(shown[1], 1000, 0.05 / 4)
    assert held >= 930


@pytest.mark.long
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.03, 0.05])
def test_false_findings_and_coverage(seeds, deviation):
    """The table of cxr/evaluation/README.md; -s prints its rows."""
    sweeps, comparisons = 4000, (1, 4, 16)
    rng = np.random.default_rng([seeds, round(100 * deviation)])
    shown, naive, held = share_shown(seeds, deviation, comparisons, sweeps, rng)
    *_, covered = share_shown(seeds, deviation, (1,), 1000, rng, difference=0.05)
    family = [hits / sweeps * number for hits, number in zip(shown, comparisons, strict=True)]
    print(f"| {seeds} | {deviation} |", *(f"{rate:.1%} |" for rate in family), f"{covered / 1000:.1%} |")
    for hits, number in zip(shown, comparisons, strict=True):
        assert at_most(hits, sweeps, 0.05 / number), (seeds, deviation, number)
    assert held >= 0.93 * sweeps and covered >= 930
    if seeds == 2 and deviation == 0.03:
        assert not at_most(naive[2], sweeps, 0.05 / 16), "the reason for two quantiles instead of one"


@pytest.mark.long
@pytest.mark.parametrize("comparisons", [1, 4, 16])
def test_five_seeds_find_a_difference_that_matters(comparisons):
    shown, *_ = share_shown(5, 0.01, (comparisons,), 400, np.random.default_rng(5), images=1421, difference=0.05)
    print(f"found with {comparisons} comparisons: {shown[0] / 400:.0%}")
    assert shown[0] >= 320


def test_components_are_those_of_the_simulated_networks():
    """Of 2,000 images: the part of the patients is the covariance of networks, and that of the seeds their variance."""
    rng = np.random.default_rng(8)
    hard = rng.random(2000) < 0.3
    right = rng.random((8, 2000)) > np.where(hard, 0.6, 0.02)
    labels = np.zeros(2000, int)
    found = mean_over_seeds(labels, np.arange(2000), [(~row).astype(int) for row in right], 2)["accuracy"]
    of_patients = np.var(np.where(hard, 0.6, 0.02)) / 2000
    of_seeds = np.mean(np.where(hard, 0.24, 0.0196)) / 2000
    expected = 1.96 * (of_patients + of_seeds / 8) ** 0.5
    low, high = found["ci95"]
    assert (high - low) / 2 == pytest.approx(expected, rel=0.2)
    assert found["sd"] == pytest.approx(of_seeds**0.5, rel=0.6)


def test_a_p_value_is_the_level_at_which_the_interval_ends_at_zero():
    parts = Components(1e-4, 300, [(4e-4, 3), (1e-4, 3)])
    assert half_width(parts, p_value(0.04, parts)) == pytest.approx(0.04)
    assert p_value(0.0, parts) == pytest.approx(1.0)
    assert p_value(0.04, parts) == p_value(-0.04, parts)


def test_as_many_seeds_as_are_said_to_be_needed_find_the_difference():
    """By simulation of sums of independent normal parts, not by the formula itself."""
    parts, rng = Components(1e-4, 1000, [(4e-4, 2), (4e-4, 2)]), np.random.default_rng(9)
    needed = seeds_needed(parts, 0.05, 0.05)
    found = 0
    for _ in range(2000):
        sides = rng.normal(0, 0.02, (2, needed))
        difference = 0.05 + rng.normal(0, 0.01) + sides[0].mean() - sides[1].mean()
        seeds = [(side.var(ddof=1), needed) for side in sides]
        found += difference > half_width(parts._replace(seeds=seeds), 0.05)
    assert 0.72 <= found / 2000 <= 0.93
    assert seeds_needed(parts._replace(patients=1e-3), 0.05, 0.05) is None, "seeds do not replace patients"


def test_seeds_that_differ_widen_the_interval_and_comparisons_too():
    rng = np.random.default_rng(4)
    labels = rng.integers(3, size=600)

    def networks(*accuracy):
        return [np.where(rng.random(600) < a, labels, (labels + 1) % 3) for a in accuracy]

    def width(ours, theirs, comparisons=1):
        low, high = paired_difference(labels, np.arange(600), ours, theirs, 3, comparisons)["f1_macro"]["ci95"]
        return high - low

    alike, apart = networks(0.85, 0.85, 0.85), networks(0.95, 0.85, 0.75)
    assert width(apart, alike) > 2 * width(alike, networks(0.85, 0.85, 0.85))
    assert width(apart, alike, 8) > 1.5 * width(apart, alike)
