"""Which hospital images are from, and whether classes and hospitals are the same thing."""

import numpy as np
import pytest
from drawn_dicom import dicom, save_dicom
from PIL import Image
from sklearn.metrics import f1_score

from cxr.data.decode import Reading, decode
from cxr.data.hospitals import by_files, by_hospital, class_of_hospital, confounding, file_kinds, hospitals_of
from cxr.data.listed import read_listed
from cxr.data.naming import Naming
from cxr.data.sources import read_folder
from cxr.data.store import Store, open_store
from cxr.errors import UserError
from cxr.evaluation.by_hospital import within_hospitals
from cxr.files.writing import read_json
from cxr.reporting.hospitals_in_words import hospital_lines
from cxr.reporting.report import write_report
from cxr.reporting.words import words
from cxr.train import main as train

CLASSES = ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS")


def found_in(labels, hospital):
    return {"known": True, **by_hospital(np.array(labels), np.array(hospital), CLASSES)}


def sentences(parts, lang="en"):
    return hospital_lines({**parts, "within": None}, words(lang))


@pytest.mark.parametrize("draw", range(30))
def test_the_warning_comes_where_class_and_hospital_are_one_and_not_where_they_are_independent(draw):
    rng = np.random.default_rng(draw)
    labels = rng.integers(0, 2, 200)
    one = np.where(rng.random(200) < 0.01, rng.integers(0, 2, 200), labels)  # but for strays
    assert sentences(found_in(labels, np.array(["A", "B"])[one])) == [
        "NORMAL and PNEUMONIA share no hospital: this score cannot tell the disease from the hospital."
    ]
    assert sentences(found_in(labels, np.array(["A", "B"])[rng.integers(0, 2, 200)])) == []


@pytest.mark.parametrize("draw", range(30))
def test_without_a_column_the_borders_of_the_images_warn(draw):
    """Two drawn hospitals, one of which leaves a darker border and finer grain."""
    rng = np.random.default_rng(draw)
    labels, group = rng.integers(0, 2, 240), rng.integers(0, 120, 240)
    for hospital, lines in ((labels, 1), (rng.integers(0, 2, 240), 0)):
        grain = rng.normal(0, np.array([20, 12])[hospital][:, None, None], (240, 32, 32))
        images = rng.normal(120, 15, (240, 1, 1)) + grain
        images[:, 8:24, 8:24] += 25 * labels[:, None, None]  # the disease, within
        images[:, :2] -= 60 * hospital[:, None, None]  # the border, at the top
        facts = {"format": np.full(240, "PNG"), **dict.fromkeys(("width", "height"), np.full(240, 32))}
        store = Store([np.clip(images, 0, 255).astype(np.uint8)], np.arange(240), facts)
        parts = {"known": False, **by_files(labels, store, group, np.arange(240), CLASSES)}
        assert len(sentences(parts)) == lines, parts
        if lines:
            assert parts["accuracy"] > 0.9
            assert sentences(parts)[0].startswith(
                "NORMAL and PNEUMONIA can be told apart by image size and border alone (at least"
            )


def test_which_classes_share_no_hospital():
    parts = found_in([0, 0, 1, 2, 3, 3], ["A", "A", "A", "B", "B", ""])
    assert parts["table"]["B"] == {"NORMAL": 0, "PNEUMONIA": 0, "COVID19": 1, "TUBERCULOSIS": 1}
    assert parts["unknown"] == 1 and parts["pairs"] == 6 and len(parts["apart"]) == 4
    (line,) = sentences(parts)
    assert line.startswith("No hospital has both NORMAL or PNEUMONIA and COVID19 or TUBERCULOSIS: this score cannot")
    assert sentences(found_in([0, 1, 2], ["A", "B", "C"]))[0].startswith("The classes share no hospital")
    assert "함께 있는 병원이 없어" in sentences(parts, "ko")[0]
    assert sentences(found_in([0, 1], ["", ""])) == []


def test_the_real_images_say_it_without_a_column(cxr4, tmp_path):
    """Normal and pneumonia are of one hospital there, COVID-19 and tuberculosis partly of one compilation."""
    files = [path for folder in sorted((cxr4 / "train").iterdir()) for path in sorted(folder.iterdir())[:120]]
    table = tmp_path / "real.csv"
    table.write_text("file,label\n" + "".join(f"{path},{path.parent.name}\n" for path in files))
    images = read_listed({"": table}, cxr4)
    store, images = open_store(images, 128, tmp_path / "cache")
    parts = confounding(images, store, np.arange(len(images)), np.ones(len(images), dtype=bool))
    apart = {frozenset(pair) for pair in parts["apart"]}
    assert not parts["known"] and frozenset(("NORMAL", "PNEUMONIA")) not in apart
    assert {frozenset((a, b)) for a in ("NORMAL", "PNEUMONIA") for b in ("COVID19", "TUBERCULOSIS")} <= apart


def test_the_class_that_a_hospital_alone_gives():
    hospital = np.array(["A", "A", "B", "B", "B", "A", "B", "C"])
    labels = np.array([1, 1, 0, 2, 2, 0, 0, 0])
    assert class_of_hospital(hospital, labels, np.arange(5), np.array([5, 6, 7])).tolist() == [1, 2, 1]


def test_the_score_within_hospitals():
    rng = np.random.default_rng(0)
    labels, hospital = rng.integers(0, 3, 300), np.array(["A", "B", "C"])[rng.integers(0, 3, 300)]
    hospital[labels == 2] = "C"  # A and B have two classes only
    hospital[:5] = "few"
    logits = rng.normal(size=(300, 3)) + np.eye(3)[labels]
    scores = within_hospitals(labels, logits, hospital, np.arange(300))
    assert set(scores["hospitals"]) == {"A", "B", "C"} and scores["hospitals"]["A"]["classes"] == [0, 1]
    of_a = hospital == "A"
    expected = f1_score(labels[of_a], logits[of_a][:, :2].argmax(1), average="macro")
    assert scores["hospitals"]["A"]["f1_macro"] == pytest.approx(expected)
    assert scores["f1_macro"] == pytest.approx(np.mean([part["f1_macro"] for part in scores["hospitals"].values()]))
    low, high = scores["ci95"]["f1_macro"]
    assert low < scores["f1_macro"] < high < low + 0.2
    assert within_hospitals(labels, logits, np.array(CLASSES)[labels], np.arange(300)) is None


@pytest.fixture
def two(drawn, tmp_path):
    """The drawn images of two classes, with a hospital each in a manifest; and a function that reads them."""
    lines = ["file,patient,clinic"]
    for name, hospital in (("NORMAL", "North"), ("TURBERCULOSIS", "South")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for number, path in enumerate(sorted(drawn.rglob(f"{name}/*"))):
            Image.open(path).convert("L").save(tmp_path / "set" / name / f"{number}.png")
            lines.append(f"{name}/{number}.png,{name}{number // 2},{hospital}")
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(lines))
    return tmp_path / "set"


def test_a_column_of_any_name_says_the_hospital(two, tmp_path):
    store, images = open_store(read_folder(two, Naming(hospital="clinic")), 64, tmp_path / "cache")
    assert set(hospitals_of(images).tolist()) == {"North", "South"} and "clinic" not in images.slices
    with pytest.raises(UserError, match="no column town, as data.hospital says; it has file, patient, clinic"):
        read_folder(two, Naming(hospital="town"))
    (two / "manifest.csv").unlink()
    with pytest.raises(UserError, match="data.hospital=clinic: a column of manifest.csv, but"):
        read_folder(two, Naming(hospital="clinic"))
    store, images = open_store(read_folder(two), 64, tmp_path / "cache")
    assert hospitals_of(images) is None and all(kind.startswith("PNG") for kind in file_kinds(store).tolist())


def test_a_run_says_it_beside_its_score(run, two, tiny, tmp_path):
    words = ["data=folder", f"data.root={two}", "data.hospital=clinic", *tiny, "trainer.max_epochs=1"]
    code, out, err = run(train, *words, f"hydra.run.dir={tmp_path}/run")
    assert code == 0, err
    lines = out.splitlines()
    sentence = "NORMAL and TUBERCULOSIS share no hospital: this score cannot tell the disease from the hospital."
    assert lines.index(sentence) == next(i for i, line in enumerate(lines) if line.startswith("accuracy ")) + 1
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert metrics["hospitals"]["apart"] == [["NORMAL", "TUBERCULOSIS"]] and metrics["hospitals"]["within"] is None
    assert metrics["shortcuts"]["hospital_alone"]["accuracy"] == 1
    assert "the most frequent class of the image's hospital” (macro F1 1.000)" in out
    assert "no verdict on the WHO target, and no predictive values: TUBERCULOSIS shares no hospital" in out
    assert "at a prevalence" not in out and "recall of the rule “the most frequent class of" in out
    assert f"**{sentence}**" in (tmp_path / "run" / "MODEL_CARD.md").read_text()
    assert f'<p class="note">{sentence}</p>' in write_report(tmp_path / "run", "en").read_text()


def test_a_header_s_hospital_is_read_only_if_asked_for(tmp_path):
    path = save_dicom(tmp_path / "a.dcm", dicom())
    assert decode(path, 64).hospital == ""
    options = {"negatives": "keep", "dicom_patient": "hash", "dicom_unknown_parts": "reject", "hospital": "dicom"}
    reading = Reading.of(options)
    assert decode(path, 64, reading).hospital == "St. Elsewhere"
