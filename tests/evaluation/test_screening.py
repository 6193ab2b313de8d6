import numpy as np
import pytest
from scipy.stats import beta

from cxr.evaluation.screening import choose_threshold, operating_point, predictive_values, screening, verdict


@pytest.mark.parametrize(("asked", "reached"), [(0.9, 9), (0.91, 10), (1.0, 10), (0.01, 1)])
def test_the_threshold_is_the_highest_that_enough_positive_images_reach(asked, reached):
    score = np.concatenate([np.arange(10) / 10, np.full(5, 0.95)])
    positive = np.arange(15) < 10
    threshold = choose_threshold(positive, score, asked)
    assert (score[positive] >= threshold).sum() == reached
    assert (score[positive] > threshold).sum() == reached - 1


def test_shares_have_exact_intervals():
    positive = np.arange(100) < 41
    point = operating_point(positive, positive * 0.9 - (np.arange(100) < 2), 0.5)
    assert (point["sensitivity"], point["specificity"]) == (39 / 41, 1.0)
    assert point["ci95"]["sensitivity"] == pytest.approx([beta.ppf(0.025, 39, 3), beta.ppf(0.975, 40, 2)])
    assert point["ci95"]["specificity"] == pytest.approx([0.025 ** (1 / 59), 1.0])


def at(hits, positives, cleared, negatives):
    positive = np.arange(positives + negatives) < positives
    score = np.concatenate([np.arange(positives) < hits, np.arange(negatives) >= cleared]).astype(float)
    return operating_point(positive, score, 0.5)


@pytest.mark.parametrize(
    ("point", "says"),
    [
        (at(39, 41, 600, 700), "not shown"),  # 95 % of 41 images: the interval begins at 83 %
        (at(390, 400, 600, 700), "met"),
        (at(390, 400, 300, 700), "missed"),
        (at(20, 41, 600, 700), "missed"),
        (at(390, 400, 0, 0), "not shown"),
    ],
)
def test_a_target_is_met_or_missed_only_where_the_images_suffice(point, says):
    assert verdict(point) == says


def test_predictive_values_by_counting_people():
    point = at(90, 100, 160, 200)
    found = predictive_values(point, 0.05)  # of 100,000: 5,000 have it, 4,500 are found; 19,000 others are called too
    assert found["ppv"] == pytest.approx(4500 / 23_500)
    assert found["npv"] == pytest.approx(76_000 / 76_500)
    for key in ("ppv", "npv"):
        low, high = found["ci95"][key]
        assert low < found[key] < high


def test_nobody_called_positive_has_no_predictive_value():
    point = at(0, 10, 20, 20)
    told = screening("TUBERCULOSIS", 0.9, 0.5, point, point)
    assert [p["ppv"] for p in told["prevalences"]] == [None] * 3
    assert all(p["npv"] is not None for p in told["prevalences"])
