"""What the rows of a table say of an image: its label, its split, and what becomes of rows that disagree."""

import pytest
from drawn_tables import read, table_of

from cxr.errors import UserError
from cxr.train import main as train


def test_several_labels_are_not_a_class_unless_told(image, tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.png")
    table = table_of(tmp_path, "file,label", "a.png,TB|Effusion", "b.png,TB", "c.png,Normal")
    with pytest.raises(UserError, match=r"1 of 3 rows name several labels, such as a.png \(TB\|Effusion\)"):
        read(table)
    assert read(table, several_labels="drop").rejected == (("a.png", "several labels"),)
    assert "TB|EFFUSION" in read(table, several_labels="keep").classes


def test_missing_is_missing_and_uncertain_is_no_class(image, tmp_path):
    values = ("1", "1.0", "0", "nan", "None", "NA", "?", "", "-1", "-1.0")
    for name in range(len(values)):
        image(tmp_path / f"{name}.png")
    lines = [f"{name}.png,{value},{value}" for name, value in enumerate(values)]
    images = read(table_of(tmp_path, "file,label,patient", *lines))
    assert images.counts() == {"0": 1, "1": 2} and images.patient.tolist() == ["1", "1", "0"]
    reasons = [reason for _, reason in images.rejected]
    assert reasons == ["no label in the table"] * 5 + ["an uncertain label (-1)"] * 2


def test_a_file_counts_once_however_it_is_written(image, tmp_path):
    for name in ("a.png", "b.png"):
        image(tmp_path / name)
    lines = ("a.png,TB", "./a.png,TB", "x/../a.png,TB", f"{tmp_path}/a.png,TB", "b.png,Normal")
    images = read(table_of(tmp_path, "file,label", *lines))
    assert images.file.tolist() == ["a.png", "b.png"]
    assert "rows of t.csv that name a file again: 3; each file counts once" in images.remarks
    with pytest.raises(UserError, match=r"two things of 2 files \(such as a.png: label TB and Normal\)"):
        read(table_of(tmp_path, "file,label", *lines, "a.png,Normal", "b.png,TB"))


def test_one_column_a_class(image, tmp_path):
    for name in "abcd":
        image(tmp_path / f"{name}.png")
    lines = ("a.png,40,1.0,0,1", "b.png,41,,1,0", "c.png,42,0,0,1", "d.png,43,-1,1,0")
    images = read(table_of(tmp_path, "Path,Age,No Finding,Pneumonia,Device", *lines), several_labels="drop")
    assert images.counts() == {"PNEUMONIA": 1, "DEVICE": 1} and list(images.slices) == ["age"]
    assert dict(images.rejected)["d.png"] == "an uncertain label (-1)"
    assert "t.csv has one column a class: no finding, pneumonia, device" in images.remarks


def test_unknown_splits_are_named_and_given_refuses_them(run, image, tmp_path):
    lines = []
    for n, split in enumerate(("train", "test", "dev", "dev") * 10):
        image(tmp_path / f"{n}.png", seed=n)
        lines.append(f"{n}.png,{('TB', 'Normal')[n // 4 % 2]},{split},{n}")
    table = table_of(tmp_path, "file,label,split,patient", *lines)
    text = "split has values that are not train, val or test: dev (20 images); these images count as without one"
    assert text in read(table).remarks
    words = ("data=table", f"data.table={table}", f"hydra.run.dir={tmp_path / 'run'}")
    code, _, err = run(train, *words, "data.split=given")
    assert code == 2 and "not train, val or test: dev (20); rename them" in err and len(err.splitlines()) == 1


DISPUTED = (
    *("a.png,TB,1,ann", "a.png,Tuberculosis,1,bob", "a.png,Normal,1,eve"),
    *("b.png,Normal,2,ann", "b.png,TB,2,bob", "c.png,TB,3,ann", "c.png,-1,3,bob", "c.png,-1,3,eve"),
    *("d.png,Normal,4,ann", "d.png,Normal,4,ann"),
)


@pytest.mark.parametrize(
    ("disagreement", "used", "left_out"),
    [
        ("drop", {"d.png": "NORMAL"}, {"a.png", "b.png", "c.png"}),
        ("majority", {"a.png": "TUBERCULOSIS", "d.png": "NORMAL"}, {"b.png", "c.png"}),
    ],
)
def test_a_disputed_label_is_never_a_class_unnoticed(image, tmp_path, disagreement, used, left_out):
    for name in "abcd":
        image(tmp_path / f"{name}.png")
    table = table_of(tmp_path, "file,label,patient,reader", *DISPUTED)
    images = read(table, disagreement=disagreement)
    assert {file: images.classes[n] for file, n in zip(images.file, images.label, strict=True)} == used
    assert {file for file, _ in images.rejected} == left_out
    settled = len(used) - 1
    disputed = f"rows with different labels: 3 of 4 files; {settled} with a class by majority, {3 - settled} without"
    assert any(disputed in remark for remark in images.remarks)
    assert dict(zip(images.file.tolist(), images.slices["reader"].tolist(), strict=True))["d.png"] == "ann"
    if disagreement == "majority":
        assert dict(images.rejected)["c.png"] == "an uncertain label (-1)", "most readers were not sure"
        assert images.slices["reader"][0] == "", "several readers"


def test_disputed_labels_patients_and_splits_stop_unless_told(image, tmp_path):
    for name in "abcd":
        image(tmp_path / f"{name}.png")
    with pytest.raises(UserError, match=r"two things of 3 files \(such as a.png: label TB and Normal\)"):
        read(table_of(tmp_path, "file,label,patient,reader", *DISPUTED))
    for column in ("patient", "split"):
        table = table_of(tmp_path, f"file,label,{column}", "a.png,TB,train", "a.png,TB,test", "b.png,Normal,train")
        with pytest.raises(UserError, match=rf"two things of 1 file \(a.png: {column} train and test\)"):
            read(table, disagreement="majority")


@pytest.mark.parametrize(("uncertain", "counts"), [("absent", {"0": 2, "1": 1}), ("present", {"0": 1, "1": 2})])
def test_an_uncertain_label_counts_as_told(image, tmp_path, uncertain, counts):
    for name in "abc":
        image(tmp_path / f"{name}.png")
    assert (
        read(table_of(tmp_path, "file,label", "a.png,1", "b.png,-1", "c.png,0"), uncertain=uncertain).counts() == counts
    )
