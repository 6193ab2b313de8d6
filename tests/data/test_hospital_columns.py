"""What the hospitals of a table may look like, and which of them can be held out."""

import logging

import numpy as np
import pytest

from cxr.data.hospitals import balance_levels, hospital_remarks, hospitals_of
from cxr.data.image_table import ImageTable
from cxr.data.listed import read_listed
from cxr.data.naming import Naming
from cxr.data.split import no_hospital, unused_reasons
from cxr.evaluate import main as evaluate
from cxr.files.writing import read_json
from cxr.options.command_line import read_command
from cxr.train import list_hospitals
from cxr.train import main as train


def table_of(hospital, label):
    n, empty = len(hospital), np.full(len(hospital), "")
    names = np.array([f"{i}.png" for i in range(n)])
    return ImageTable(None, names, np.array(label), empty, empty, ("A", "B"), {"hospital": np.array(hospital)})


@pytest.fixture
def write_table(drawn, tmp_path):
    """Writes a table of the drawn images: `hospital_of(class folder, number)` names the hospital; its options."""

    def write(hospital_of):
        lines = ["file,label,hospital"]
        for folder in sorted(path for path in (drawn / "train").iterdir() if path.is_dir()):
            for number, path in enumerate(sorted(folder.iterdir())):
                lines.append(f'{path},{folder.name},"{hospital_of(folder.name, number)}"')
        path = tmp_path / "images.csv"
        path.write_text("\n".join(lines))
        return ("data=table", f"data.table={path}", f"data.root={drawn}")

    return write


def test_unknown_hospitals_and_two_spellings_are_remarked():
    images = table_of(["NIH", "nih", "N.I.H.", "", "Seoul"], [0, 0, 1, 1, 1])
    unknown, alike = hospital_remarks(images)
    assert unknown == "the hospital is not known for 1 image"
    assert "N.I.H. (1), NIH (1), nih (1)" in alike and "Seoul" not in alike
    assert hospital_remarks(table_of(["", ""], [0, 1])) == []


def test_unknown_hospitals_are_not_one_more_to_balance():
    levels = balance_levels(("label", "hospital"), table_of(["X", "Y", "", "", "", ""], [0, 0, 0, 0, 1, 1]))
    of_a = levels[levels[:, 0] == 0, 1]
    assert len(set(of_a.tolist())) == 2 and (of_a == of_a[0]).sum() == 2, "spread over X and Y"
    assert len(set(levels[levels[:, 0] == 1, 1].tolist())) == 1, "a class without any"


def test_unused_images_are_counted_by_reason():
    images = table_of(["X", "X", "", "Y", "Y"], [0, 1, 0, 0, 1])
    split = np.array(["test", "unused", "unused", "unused", "train"])
    assert list(unused_reasons(images, split, "X").values()) == [1, 1, 1]


def test_a_file_that_two_rows_give_to_two_hospitals_has_none(drawn, tmp_path):
    file = next(iter(sorted((drawn / "train" / "NORMAL").iterdir())))
    other = sorted((drawn / "train" / "NORMAL").iterdir())[1]
    path = tmp_path / "two.csv"
    rows = [f"{file},NORMAL,X", f"{file},NORMAL,Y", f"{other},PNEUMONIA,", f"{other},PNEUMONIA,Y"]
    path.write_text("\n".join(["file,label,hospital", *rows]))
    images = read_listed({"": path}, drawn)
    assert hospitals_of(images).tolist() == ["", "Y"], "what only one row says counts"
    assert any("give a file to two hospitals: 1 file" in remark for remark in images.understood())
    assert hospitals_of(read_listed({"": path}, drawn, Naming(hospital="ignore"))) is None


def test_a_name_with_a_comma_gets_a_hint():
    text = str(no_hospital("St. Mary", np.array(["St. Mary, London", "Seoul"])))
    assert "\"data.hold_out='St. Mary, London'\"" in text
    assert "no such hospital; there are Seoul (1 image)" in str(no_hospital("Paris", np.array(["Seoul"])))


def test_all_leaves_out_a_hospital_that_cannot_be_held_out(write_table, tiny, caplog):
    """Most of the set's classes are of North alone: without it, there is one class."""
    words = write_table(lambda name, number: "South" if name == "NORMAL" and number % 2 else "North")
    with caplog.at_level(logging.WARNING):
        command = read_command(
            ["-m", "data.split=hospital", "data.hold_out=all", *words, *tiny], "config", list_hospitals
        )
    assert [options["data"]["hold_out"] for options in command.runs.values()] == ["South"]
    assert "data.hold_out=all leaves one out: data.hold_out=North: it has" in caplog.text


def test_a_hospital_of_one_class_is_scored_by_recall(write_table, tiny, run, tmp_path):
    """South has NORMAL alone: its macro F1 is 2r / (1 + r) of the recall r, which nobody should compare."""
    words = write_table(lambda name, number: "South" if name == "NORMAL" and number % 2 else "North")
    options = ("data.split=hospital", "data.hold_out=South", *words, *tiny, "trainer.max_epochs=1")
    code, out, err = run(train, "-m", *options, f"hydra.sweep.dir={tmp_path}/sweep")
    assert code == 0, err
    board = (tmp_path / "sweep" / "leaderboard.md").read_text()
    assert "the test images are of one class alone, NORMAL: its recall r says all" in board
    assert read_json(tmp_path / "sweep" / "comparisons.json")["transfers"][0]["hold_out"] == "South", "not swept"
    assert "| South " in board
    first = next((tmp_path / "sweep").glob("*seed-0"))
    only = tmp_path / "only.csv"
    lines = (tmp_path / "images.csv").read_text().splitlines()
    only.write_text("\n".join([lines[0], *(line for line in lines if line.endswith('"South"'))]))
    scored = ("data=table", f"data.table={only}", words[2], tiny[1], f"ckpt={first}")
    code, out, err = run(evaluate, *scored, f"hydra.run.dir={tmp_path}/a")
    assert code == 0, err
    assert "recall of NORMAL" in out and "| macro F1" not in out and " recall. [low, high]" in out
    code, _, err = run(evaluate, *scored, "calibrate_on=5", f"hydra.run.dir={tmp_path}/b")
    assert code == 2 and "calibrate_on=5: the images drawn are all NORMAL" in err


def test_the_worst_hospital_needs_validation_images(write_table, tiny, run, tmp_path):
    words = write_table(lambda name, number: "South" if number % 2 else "North")
    options = (*words, *tiny, "select=worst_hospital", "data.val_fraction=0", f"hydra.run.dir={tmp_path}/run")
    code, _, err = run(train, *options)
    assert code == 2 and "data.val_fraction=0 leaves none" in err and not (tmp_path / "run").exists()
