"""What is lost outside, and what would win it back."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from cxr.evaluation.by_hospital import large_hospitals, lowest_f1, scores_by_hospital
from cxr.evaluation.differences import gap_over_seeds
from cxr.evaluation.evaluation import Evaluation
from cxr.evaluation.gap_parts import best_offsets, gap_parts
from cxr.evaluation.hospital_probe import hospital_probe
from cxr.evaluation.recalibration import draw_images, fit_offsets, recalibrate
from cxr.evaluation.screening import keeping_threshold
from cxr.evaluation.transfer import of_common_classes, transfer

CLASSES = ("NORMAL", "PNEUMONIA", "COVID19")


def drawn(n=1500, seed=0, shares=(0.4, 0.4, 0.2), shift=(0.0, 0.0, 0.0), sharp=3.0):
    """Images whose logits are those of their class plus noise, and shifted as if by another hospital."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=shares)
    logits = (sharp * np.eye(3)[labels] + rng.normal(size=(n, 3)) + shift).astype(np.float32)
    return Evaluation(np.arange(n), labels, logits, np.arange(n) // 2, CLASSES, None)


@pytest.mark.parametrize(
    ("outside", "cause"),
    [
        ({"shares": (0.1, 0.1, 0.8), "sharp": 1.5}, "prevalence"),
        ({"shift": (0.0, 0.0, 4.0)}, "threshold"),
        ({"sharp": 1.0}, "ranking"),
    ],
)
def test_each_cause_of_a_loss_is_found(outside, cause):
    inside = drawn(sharp=outside["sharp"] if cause == "prevalence" else 3.0)
    elsewhere = drawn(seed=1, **outside)
    parts = gap_parts(inside, elsewhere)
    lost = inside.scores["f1_macro"] - elsewhere.scores["f1_macro"]
    assert sum(part["difference"] for part in parts.values()) == pytest.approx(lost, abs=1e-6)
    low, _ = parts[cause]["ci95"]
    assert low > 0.02, "beyond chance"
    assert parts[cause]["difference"] == max(part["difference"] for part in parts.values())
    if cause != "prevalence":
        assert parts[cause]["difference"] == pytest.approx(lost, abs=0.03)


def test_the_intervals_of_the_parts_hold_for_other_patients():
    """Where both sets are alike, nothing is lost by prevalence: about 19 of 20 intervals have 0 in them."""
    hits = 0
    for seed in range(12):
        low, high = gap_parts(drawn(200, seed=seed), drawn(200, seed=100 + seed))["prevalence"]["ci95"]
        hits += low <= 0 <= high
    assert hits >= 10


def test_parts_are_not_known_without_images():
    inside, outside = drawn(), drawn(seed=1)
    assert gap_parts(inside, outside.where(outside.labels < 2)) is None
    assert gap_parts(inside, outside.where(np.isin(outside.group, range(4)))) is None
    assert gap_parts(*(side.where(side.labels == 2) for side in (inside, outside))) is None, "an offset wins all back"
    assert gap_parts(of_common_classes(inside, outside.where(outside.labels < 2)), outside.where(outside.labels < 2))


def test_the_transfer_gap_is_over_the_classes_of_both():
    inside, outside = drawn(), drawn(seed=1, sharp=1.0)
    outside = outside.where(outside.labels < 2)
    common = of_common_classes(inside, outside)
    figures, gap = transfer(common, outside)
    assert set(common.labels) == {0, 1} and figures["n_test"] == len(common)
    expected = [
        f1_score(side.labels, side.predicted, labels=[0, 1], average="macro", zero_division=0)
        for side in (outside, common)
    ]
    assert gap["f1_macro"]["difference"] == pytest.approx(expected[0] - expected[1], abs=1e-6)
    low, high = gap["f1_macro"]["ci95"]
    assert low < gap["f1_macro"]["difference"] < high < 0


def test_the_gap_over_seeds_widens_with_them():
    """With one seed the interval is over patients; seeds that differ make it wider."""
    outside = [drawn(seed=1, sharp=sharp) for sharp in (0.8, 1.0, 1.4)]
    inside = [drawn(seed=0) for _ in outside]
    outside = [replace(side, labels=outside[0].labels) for side in outside]
    sides = [(side[0].labels, side[0].group, [network.predicted for network in side]) for side in (outside, inside)]
    one = transfer(inside[1], outside[1])[1]["f1_macro"]
    three = gap_over_seeds(*sides, 3)["f1_macro"]
    points = [out.scores["f1_macro"] - within.scores["f1_macro"] for out, within in zip(outside, inside, strict=True)]
    assert three["mean"] == pytest.approx(np.mean(points), abs=1e-6) and three["sd"] == pytest.approx(
        np.std(points, ddof=1)
    )
    assert one["difference"] == pytest.approx(points[1], abs=1e-6)
    assert np.ptp(three["ci95"]) > 1.5 * np.ptp(one["ci95"])


def test_where_all_patients_agree_an_interval_still_has_a_width():
    """Recall 0 for 20 patients outside and 40 inside: as exact intervals say, the gap may be several points."""
    labels, wrong = np.ones(80, dtype=int), np.zeros(80, dtype=int)
    sides = [(labels[:n], np.arange(n) // 2, [wrong[:n]] * 2) for n in (40, 80)]
    for gap in (gap_over_seeds(*sides, 3)["f1_macro"], gap_over_seeds(*sides, 3)["accuracy"]):
        low, high = gap["ci95"]
        assert gap["mean"] == 0 and (low, high) == pytest.approx((-0.088, 0.168), abs=1e-3)
    one = drawn(2).scores["ci95"]
    assert one["f1_macro"] == pytest.approx([0.025, 1.0], abs=0.1), "one patient"
    assert one["per_class"]["NORMAL"]["recall"][1] - one["per_class"]["NORMAL"]["recall"][0] > 0.9


def test_offsets_undo_a_shift():
    shifted = drawn(shift=(0.0, 0.0, 4.0))
    offsets = best_offsets(shifted.labels, shifted.logits)
    assert offsets[2] - offsets[:2].mean() == pytest.approx(-4, abs=1)
    temperature, fitted = fit_offsets(shifted.logits, shifted.labels)
    assert fitted[2] - fitted[:2].mean() == pytest.approx(-4 / temperature, abs=1.5)
    assert fit_offsets(shifted.logits[:3], shifted.labels[:3])[1].max() < 4, "three images move little"


def test_calibration_on_some_images_is_scored_on_the_others():
    shifted = drawn(shift=(0.0, 0.0, 4.0))
    chosen = draw_images(shifted.group, 101)
    assert 101 <= chosen.sum() <= 102 and not set(shifted.group[chosen]) & set(shifted.group[~chosen])
    assert draw_images(shifted.group, 10**6).all()
    found = recalibrate(shifted.where(chosen), shifted.where(~chosen), 101)
    assert found["images"] == chosen.sum() == sum(found["counts"].values())
    gain = found["difference"]["f1_macro"]
    assert gain["shown"] and gain["difference"] > 0.1
    assert found["test"]["f1_macro"] == pytest.approx(
        shifted.where(~chosen).scores["f1_macro"] + gain["difference"], abs=1e-6
    )
    assert found["calibration"]["ece"] < 0.05
    low, high = found["other_draws"]
    assert 0.1 < low < gain["difference"] + 0.05 and gain["difference"] - 0.05 < high < 0.7 and low < high


def test_the_threshold_that_keeps_a_sensitivity():
    score, positive = np.array([0.9, 0.8, 0.7, 0.2, 0.6, 0.1]), np.array([1, 1, 1, 1, 0, 0], dtype=bool)
    group = np.arange(6)
    kept = keeping_threshold(positive, score, group, 0.75)
    assert (kept["threshold"], kept["sensitivity"], kept["specificity"]) == (0.7, 0.75, 1)
    assert keeping_threshold(positive, score, group, 0.76)["threshold"] == 0.2
    assert keeping_threshold(positive, score, group, 0.0)["threshold"] == 0.9


def test_scores_by_hospital_are_those_of_its_images():
    evaluation = drawn(300, sharp=1.0)
    hospital = np.where(evaluation.labels == 2, "A", np.array(["A", "B"])[np.arange(300) % 2])
    hospital[:10] = ""
    scores = scores_by_hospital(evaluation, hospital)
    assert list(scores) == ["A", "B"] and list(scores["B"]["per_class"]) == ["NORMAL", "PNEUMONIA"]
    of_b = evaluation.where(hospital == "B")
    assert scores["B"]["per_class"]["NORMAL"]["recall"] == np.mean(of_b.predicted[of_b.labels == 0] == 0)
    lowest, mean = lowest_f1(evaluation.labels, evaluation.predicted, hospital, 3)
    f1 = [scores[name]["f1_macro"] for name in ("A", "B")]
    assert lowest == pytest.approx(min(f1)) and mean == pytest.approx(np.mean(f1))
    hospital[11:] = ""
    assert large_hospitals(hospital) == [], "none has ten images"


def test_the_hospital_is_predicted_within_classes():
    rng = np.random.default_rng(0)
    labels, hospital, group = (
        rng.integers(0, 2, 400),
        np.array(["A", "B"])[rng.integers(0, 2, 400)],
        np.arange(400) // 2,
    )
    noise = rng.normal(size=(400, 8))
    probe = hospital_probe(noise, labels, hospital, group, CLASSES)
    assert probe["chance"] == 0.5 and probe["images"] == 400
    low, high = probe["ci95"]["accuracy"]
    assert low < 0.5 < high and low < probe["accuracy"] < high
    told = hospital_probe(noise + 3 * (hospital == "A")[:, None], labels, hospital, group, CLASSES)
    assert told["accuracy"] > 0.95
    one = np.where(labels == 0, "A", "B")
    assert hospital_probe(noise, labels, one, group, CLASSES) is None, "no class is in two hospitals"
