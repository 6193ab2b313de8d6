"""Images that a table lists: CSV and parquet, wherever the files lie."""

import csv

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from cxr.audit import main as audit
from cxr.data.sources import read_local
from cxr.data.store import open_store
from cxr.errors import UserError
from cxr.files.writing import read_json
from cxr.train import main as train

CLASSES = ("Normal", "pneumonia", "COVID-19", "TB", "effusion", "nodule", "Mass")


@pytest.fixture(scope="module")
def rows(drawn):
    """96 images of 48 patients, in 7 classes, as a table has them."""
    files = sorted(path.relative_to(drawn).as_posix() for path in drawn.rglob("*.*g"))[:96]
    given = lambda number: {0: "Testing", 1: "val"}.get(number % 5, "")  # noqa: E731
    return [
        {
            "File": f" {file}",
            "label": CLASSES[n // 2 % 7],
            "patient": f"p{n // 2}",
            "split": given(n // 2),
            "site": "AB"[n % 2],
            "age": str(20 + n),
            "sex": "",
            "unit": "mm",
        }
        for n, file in enumerate(files)
    ]


def as_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_parquet(path, rows):
    columns = {name: [row[name] or None for row in rows] for name in rows[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns | {"age": [int(row["age"]) for row in rows]}), path)
    return path


def read(table, root=None, **options):
    return read_local({"source": "table", "table": str(table), "root": root, **options})


def test_csv_and_parquet_say_the_same(rows, drawn, tmp_path):
    first, second = read(as_csv(tmp_path / "t.csv", rows), drawn), read(as_parquet(tmp_path / "t.parquet", rows), drawn)
    assert first.classes == ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS", "EFFUSION", "MASS", "NODULE")
    assert first.root == drawn.resolve() and len(first) == 96 and not first.rejected
    assert set(first.split.tolist()) == {"test", "val", ""}
    assert list(first.slices) == ["site", "age", "sex", "unit"]
    for name in ("file", "label", "patient", "split"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name, values in first.slices.items():
        np.testing.assert_array_equal(values, second.slices[name])


def test_files_beside_the_table_and_by_their_whole_path(rows, drawn, image, tmp_path):
    image(tmp_path / "a" / "person7_x.png")
    image(tmp_path / "b.png", seed=1)
    table = as_csv(
        tmp_path / "t.csv",
        [{"file": "a\\person7_x.png", "label": "x"}, {"file": str(tmp_path / "b.png"), "label": "y"}],
    )
    images = read(table)
    assert images.file.tolist() == ["a/person7_x.png", "b.png"]
    assert images.patient.tolist() == ["person7", ""]


def test_two_tables_of_one_folder_have_a_store_each(rows, drawn, tmp_path):
    tables = [as_csv(tmp_path / f"{name}.csv", part) for name, part in (("a", rows[:40]), ("b", rows[40:]))]
    for _ in range(2):
        stores = [open_store(read(table, drawn), 16, tmp_path / "cache")[0] for table in tables]
    assert [len(store) for store in stores] == [40, 56]
    assert len(list(tmp_path.glob("cache/store-*/*/images-00000.json"))) == 2


def test_rows_that_cannot_be_used_are_named(image, tmp_path):
    image(tmp_path / "a.png")
    (tmp_path / "folder.png").mkdir()
    names = ["a.png", "gone.png", "folder.png", "t.csv", "../c.png", "b.png"]
    images = read(as_csv(tmp_path / "t.csv", [{"file": n, "label": "" if n == "b.png" else "x"} for n in names]))
    assert images.file.tolist() == ["a.png"]
    assert [file for file, _ in images.rejected] == names[1:]
    assert "not found below" in images.rejected[0][1] and images.rejected[-1][1] == "no label in the table"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "is empty; a table needs a line with the names of its columns"),
        (b"file,patient\na.png,1\n", "no column for label"),
        (b"file,label\n", "no usable images"),
        (b"file,label\ngone.png,x\n", "no usable images: 0 of its 1 files are below"),
        (b"file,label\nt.csv,x\n", "t.csv: not a JPEG, PNG or DICOM image"),
        (b"file,label\n../a.png,x\n", "../a.png: is not below"),
        (b"file,label\n\xff\xfe,x\n", "not text in UTF-8, UTF-16, CP949; save it as CSV in UTF-8"),
    ],
)
def test_tables_that_cannot_be_used(run, tmp_path, content, line):
    (tmp_path / "t.csv").write_bytes(content)
    code, out, err = run(train, "data=table", f"data.table={tmp_path / 't.csv'}", f"hydra.run.dir={tmp_path / 'run'}")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and line in err
    assert not (tmp_path / "run").exists()


ENCODED = {
    "semicolons": (";", "utf-8", "UTF-8 with semicolons"),
    "tabs": ("\t", "utf-8", "UTF-8 with tabs"),
    "Korean Excel": (",", "cp949", "CP949 with commas"),
    "UTF-16": ("\t", "utf-16", "UTF-16 with tabs"),
    "with a mark": (",", "utf-8-sig", ""),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_tables_in_any_usual_encoding(image, tmp_path, kind):
    separator, encoding, remark = ENCODED[kind]
    for name in ("가.png", "나.png"):
        image(tmp_path / name)
    lines = [("file", "label", "patient"), ("가.png", "정상", "김, 하나"), ("나.png", "결핵", "둘")]
    quoted = "\r\n".join(separator.join(f'"{v}"' for v in line) for line in lines)
    (tmp_path / "t.csv").write_bytes(quoted.encode(encoding))
    images = read(tmp_path / "t.csv")
    assert images.counts() == {"NORMAL": 1, "TUBERCULOSIS": 1} and images.patient.tolist() == ["김, 하나", "둘"]
    assert remark in images.remarks[0] and (remark != "") == ("is read as" in images.remarks[0])


def table_of(tmp_path, header, *lines):
    (tmp_path / "t.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return tmp_path / "t.csv"


def test_columns_of_known_sets_and_those_that_are_told(image, tmp_path):
    for name in ("00000001_000.png", "00000002_000.png"):
        image(tmp_path / name)
    nih = table_of(
        tmp_path,
        "Image Index,Finding Labels,Follow-up #,Patient ID,OriginalImage[Width,Height]",
        "00000001_000.png,Hernia,0,1,5,5",
        "00000002_000.png,No Finding,1,2,5,5",
    )
    images = read(nih)
    assert images.counts() == {"NORMAL": 1, "HERNIA": 1} and images.patient.tolist() == ["1", "2"]
    assert "columns of t.csv: file is image index, label is finding labels, patient is patient id" in images.remarks
    told = table_of(tmp_path, "bild,befund,fall", "00000001_000.png,TB,x", "00000002_000.png,Normal,y")
    with pytest.raises(
        UserError, match=r"no column for file and label; it has bild, befund, fall; name them with data.columns"
    ):
        read(told)
    columns = {"file": "Bild", "label": "befund", "patient": "fall"}
    assert read(told, columns=columns).patient.tolist() == ["x", "y"]
    with pytest.raises(UserError, match=r"no column Befunde.*the nearest is befund"):
        read(told, columns=columns | {"label": "Befunde"})


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


def test_files_of_another_machine_are_found_by_their_names(image, tmp_path):
    for name in ("one/a.png", "one/b.jpg", "one/c.png", "two/c.png", "two/d.png", "f.jpg"):
        image(tmp_path / name)
    lines = (
        "D:\\data\\a.png,TB",
        "/home/eve/b,TB",
        "/x/c.png,TB",
        "/x/d.png,TB",
        "/y/d.png,Normal",
        "/x/e.png,TB",
        "f.dcm,TB",
    )
    images = read(table_of(tmp_path, "file,label", *lines, "f.dcm,TB"))
    assert images.file.tolist() == ["one/a.png", "one/b.jpg", "two/d.png", "f.jpg"]
    assert "found by name below" in " ".join(images.remarks)
    reasons = dict(images.rejected)
    assert "not that of one file" in reasons["/x/c.png"] and "not that of one file" in reasons["/y/d.png"]
    assert "is not below" in reasons["/x/e.png"]


def test_nih_s_own_table_is_read_as_it_is(cxr4):
    """Its images are named .png there and are .jpg here; 261 of 735 have several findings."""
    folder = cxr4.parent / "hospitals"
    table, root = folder / "nih_Data_Entry_2017.csv", folder / "nih"
    with pytest.raises(UserError, match="261 of 735 rows name several labels"):
        read(table, root)
    images = read(table, root, several_labels="drop")
    assert images.counts() == {"NORMAL": 399, "PNEUMONIA": 75} and len(images.rejected) == 261
    assert all(
        file.rsplit("/", 1)[-1].startswith(f"{int(p):08}_") for file, p in zip(images.file, images.patient, strict=True)
    )


def test_damaged_parquet_and_other_files(run, tmp_path):
    (tmp_path / "t.parquet").write_bytes(b"PAR1 no PAR1")
    with pytest.raises(UserError, match="not a parquet file"):
        read(tmp_path / "t.parquet")
    for table in (tmp_path / "none.csv", tmp_path):
        assert "must be the path of a CSV or parquet file" in run(train, "data=table", f"data.table={table}")[2]
    assert "give data.table=" in run(train, "data=table")[2]


def test_trained_with_slices(run, rows, drawn, tiny, tmp_path):
    table = as_csv(tmp_path / "images (1).csv", rows)
    words = ["data=table", f"data.table={table}", f"data.root={drawn}", *tiny]
    code, _, err = run(train, *words, "data.split=given", "trainer.max_epochs=1", f"hydra.run.dir={tmp_path / 'run'}")
    assert code == 0, err
    metrics = read_json(tmp_path / "run" / "metrics.json")
    assert len(metrics["classes"]) == 7
    assert set(metrics["slices"]) == {"site", "age"}, "one value, or none, divides nothing"
    assert sum(value["images"] for value in metrics["slices"]["site"].values()) == metrics["n_test"] == 20
    assert "| site" in (tmp_path / "run" / "MODEL_CARD.md").read_text()

    assert run(audit, *words, f"hydra.run.dir={tmp_path / 'audit'}")[0] == 0
    assert read_json(tmp_path / "audit" / "audit.json")["images"] == 96


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


def test_tables_of_splits(image, tmp_path):
    for name in "abc":
        image(tmp_path / f"{name}.png")
    for split, lines in {"one": ("a.png,TB", "b.png,Normal"), "two": ("c.png,TB",)}.items():
        (tmp_path / f"{split}.csv").write_text("\n".join(["file,label", *lines]))
    data = {"source": "table", "root": None, "table": {"train": f"{tmp_path}/one.csv", "test": f"{tmp_path}/t?o.csv"}}
    assert read_local(data).split.tolist() == ["train", "train", "test"]
    (tmp_path / "two.csv").write_text("file,label\na.png,TB\n")
    with pytest.raises(UserError, match=r"one.csv and two.csv: says two things of 1 file .a.png"):
        read_local(data)


def test_paths_of_another_machine_are_found_by_their_ends(image, tmp_path):
    for patient in "ab":
        for study in ("one", "two"):
            image(tmp_path / "set" / patient / study / "view.png")
    lines = ("/x/release/a/one/view.jpg,TB", "/x/release/b/two/view.png,TB", "/x/c/one/view.png,TB")
    images = read(table_of(tmp_path, "file,label", *lines), root=str(tmp_path / "set"))
    assert images.file.tolist() == ["a/one/view.png", "b/two/view.png"]
    assert "not that of one file" in dict(images.rejected)["/x/c/one/view.png"]
