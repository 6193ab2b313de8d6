"""Intervals hold what they promise, and comparisons show what is there and nothing else."""

import numpy as np
import pytest
from sklearn import metrics as sk

from cxr.evaluation.differences import paired_difference, unpaired_difference
from cxr.evaluation.exact_intervals import exact_share, share_over_groups
from cxr.evaluation.intervals import (
    aurocs,
    counts_by_group,
    draw_weights,
    ends_of,
    figures_of,
    headline,
    intervals,
)

CONFUSION = np.array([[0.88, 0.1, 0.02], [0.06, 0.92, 0.02], [0.04, 0.06, 0.9]])


def images_of(patients, rng, confusion=CONFUSION):
    """Labels, said classes and groups of some patients with one to several images, all of one patient equally hard."""
    sizes = rng.geometric(0.6, patients)
    group = np.repeat(np.arange(patients), sizes)
    labels = rng.choice(3, patients, p=[0.3, 0.6, 0.1])[group]
    hard = (rng.random(patients) < 0.15)[group, None]
    chances = np.where(hard, 0.4 * confusion[labels] + 0.2, confusion[labels]).cumsum(1)
    said = (rng.random((len(labels), 1)) > chances / chances[:, -1:]).sum(1)
    return labels, said, group


@pytest.fixture
def predicted():
    rng = np.random.default_rng(0)
    labels, said, group = images_of(150, rng)
    probabilities = np.round(rng.dirichlet([1, 1, 1], len(labels)) + np.eye(3)[said], 1)  # with ties
    return labels, probabilities / probabilities.sum(1, keepdims=True), group


def test_figures_of_counts_equal_scikit_learns(predicted):
    labels, probabilities, group = predicted
    said = probabilities.argmax(1)
    figures = figures_of(counts_by_group(labels, said, group, 3).sum(0))
    each = sk.precision_recall_fscore_support(labels, said)
    for key, values in zip(("precision", "recall", "f1"), each, strict=False):
        assert figures[key] == pytest.approx(values) and figures[f"{key}_macro"] == pytest.approx(values.mean())
    assert figures["accuracy"] == pytest.approx(sk.accuracy_score(labels, said))


def test_a_resample_is_the_figure_of_its_images(predicted):
    """Weights times counts, against the images themselves repeated: also the area under the curve, with ties."""
    labels, probabilities, group = predicted
    weights = next(draw_weights(group.max() + 1, 3))
    areas = aurocs(labels, probabilities, weights[:, group])
    for row, drawn in enumerate(weights):
        images = np.repeat(np.arange(len(labels)), drawn[group].astype(int))
        assert drawn.sum() == len(drawn)
        for c in range(3):
            want = sk.roc_auc_score(labels[images] == c, probabilities[images, c])
            assert areas[row, c] == pytest.approx(want)


def test_coverage():
    """Of 300 tests of 400 patients each, 93 to 97 % have intervals that hold the truth; those that take each image for
    a patient of its own are too short."""
    rng = np.random.default_rng(1)
    labels, said, group = images_of(200_000, rng)
    truth = figures_of(counts_by_group(labels, said, np.zeros_like(group), 3)[0])
    held = {"f1_macro": 0, "accuracy": 0, "by image": 0}
    for test in range(300):
        labels, said, group = images_of(400, rng)
        for by_image, of in ((False, group), (True, np.arange(len(group)))):
            counts = counts_by_group(labels, said, of, 3)
            weights = next(draw_weights(len(counts), 300, seed=test))
            drawn = figures_of((weights @ counts.reshape(len(counts), -1)).reshape(-1, 3, 3))
            for key in ("accuracy",) if by_image else ("f1_macro", "accuracy"):
                low, high = ends_of(drawn[key])
                held["by image" if by_image else key] += low <= truth[key] <= high
    assert 0.93 <= held["f1_macro"] / 300 <= 0.97 and 0.93 <= held["accuracy"] / 300 <= 0.97
    assert held["by image"] < held["accuracy"]


def test_intervals_have_the_keys_of_the_metrics_and_hold_them(predicted):
    labels, probabilities, group = predicted
    found = intervals(labels, probabilities, group * 7 + 3, ("A", "B", "C"))
    assert found.keys() == {"accuracy", "f1_macro", "precision_macro", "recall_macro", "auroc_macro", "per_class"}
    for key, value in (
        ("accuracy", sk.accuracy_score(labels, probabilities.argmax(1))),
        ("auroc_macro", sk.roc_auc_score(labels, probabilities, multi_class="ovr")),
    ):
        low, high = found[key]
        assert 0 < low < value < high < 1
    assert found == intervals(labels, probabilities, group, ("A", "B", "C")), "a function of what it was given"


def test_exact_intervals_are_those_of_the_tables():
    """41 of 41, and 40 of 41 (Clopper & Pearson)."""
    assert exact_share(41, 41) == pytest.approx([0.914, 1.0], abs=5e-4)
    assert exact_share(40, 41) == pytest.approx([0.871, 0.999], abs=5e-4)
    assert exact_share(0, 0) == [0.0, 1.0]


def test_a_share_of_images_of_patients_who_agree_is_less_certain():
    """Ten images of each of 20 patients: of patients who are right or wrong in all, the interval is that of 20 images;
    of images that do not depend on the patient, that of all."""
    group = np.repeat(np.arange(20), 10)
    agreeing, independent = group < 15, np.tile(np.arange(10) < 8, 20)[np.random.default_rng(0).permutation(200)]
    assert share_over_groups(agreeing, group) == pytest.approx(exact_share(15, 20), abs=0.03)
    assert np.ptp(share_over_groups(independent, group)) == pytest.approx(np.ptp(exact_share(160, 200)), abs=0.04)
    assert share_over_groups(np.ones(200, bool), group) == exact_share(20, 20)
    assert share_over_groups(agreeing[:3], group[:3]) == exact_share(1, 1) and exact_share(1, 1)[0] < 0.03
    one, half = share_over_groups(np.array([True, False]), np.zeros(2)), np.tile([True, False], 40)
    assert one[0] < 0.01 and one[1] > 0.95, "of one patient, nothing follows"
    assert share_over_groups(half, np.arange(80) // 2) == exact_share(40, 80), "each patient varies as all images do"


@pytest.mark.parametrize("patients", [5, 40])
def test_coverage_of_shares_where_patients_have_several_images(patients):
    """Of 600 sets with ten images a patient, 92 % and more of the intervals hold the true share."""
    rng, held, group = np.random.default_rng(0), 0, np.arange(patients).repeat(10)
    for _ in range(600):
        rate = rng.beta(4, 1, patients)  # of each patient, 0.8 on average
        low, high = share_over_groups(rng.random(len(group)) < rate.repeat(10), group)
        held += low <= 0.8 <= high
    assert held >= 0.92 * 600


def test_a_run_against_itself_differs_by_little(predicted):
    """As little as the share of patients may be for whom they differ, if there is none among 150."""
    labels, probabilities, group = predicted
    found = paired_difference(labels, group, [probabilities.argmax(1)] * 2, [probabilities.argmax(1)] * 2, 3)
    for key in ("f1_macro", "accuracy"):
        low, high = found[key].pop("ci95")
        assert found[key] == {"difference": 0.0, "p": 1.0, "shown": False, "seeds_needed": 2}
        assert -low == high and 0.01 < high < 0.15


def test_random_relabelings_show_no_difference_and_a_true_one_is_shown():
    """Of 100 pairs of guesses at the same rates, few seem to differ; two networks of 90 and 80 % do."""
    rng = np.random.default_rng(2)
    shown = 0
    for _ in range(100):
        labels, said, group = images_of(200, rng)
        other = rng.permutation(said)
        found = paired_difference(labels, group, [rng.permutation(said)], [other], 3, resamples=500)
        shown += found["accuracy"]["shown"]
    assert shown <= 10
    labels, good, group = images_of(700, rng)
    bad = np.where(rng.random(len(good)) < 0.1, (good + 1) % 3, good)
    found = paired_difference(labels, group, [good], [bad], 3)["f1_macro"]
    assert found["shown"] and found["difference"] > 0 and found["p"] < 0.01
    wider = paired_difference(labels, group, [good], [bad], 3, comparisons=20)["f1_macro"]
    assert wider["ci95"][0] < found["ci95"][0] and wider["ci95"][1] > found["ci95"][1]


def test_coverage_of_unpaired_differences():
    """Where there is no difference, 92.5 to 98 % of 300 pairs of tests have an interval that holds 0."""
    rng = np.random.default_rng(2)
    held = {"f1_macro": 0, "accuracy": 0}
    for _ in range(300):
        sides = [counts_by_group(labels, said, of, 3) for labels, said, of in (images_of(n, rng) for n in (300, 500))]
        for key, found in unpaired_difference(*sides).items():
            held[key] += found["ci95"][0] <= 0 <= found["ci95"][1]
    assert all(0.925 <= number / 300 <= 0.98 for number in held.values()), held


def test_where_all_are_right_or_wrong_accuracy_has_the_exact_interval():
    labels, group = np.zeros(30, dtype=int), np.repeat(np.arange(10), 3)
    for said, ends in ((0, exact_share(10, 10)), (1, exact_share(0, 10))):
        found = headline(labels, np.full(30, said), group, 2)
        assert found["ci95"]["f1_macro"] == ends
        assert found["ci95"]["accuracy"] == ends and ends[1] - ends[0] > 0.3, "as many as there are patients"


def test_many_images_are_resampled_some_at_a_time(monkeypatch):
    """The same to the last bit as all at once, which takes 190 bytes for each image in each resample."""
    rng = np.random.default_rng(0)
    labels, group = rng.integers(0, 3, 900), rng.integers(0, 20, 900)
    images = labels, rng.dirichlet([1, 1, 1], 900), group, "abc"
    whole, seen = intervals(*images, resamples=50), []
    monkeypatch.setattr("cxr.evaluation.intervals.IMAGES", 9000)
    monkeypatch.setattr("cxr.evaluation.intervals.aurocs", lambda *given: seen.append(given[2].shape) or aurocs(*given))
    assert intervals(*images, resamples=50) == whole
    assert seen == [(10, 900)] * 5
