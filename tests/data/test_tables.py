"""Images that a table lists: CSV and parquet, wherever the files lie."""

import csv

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from drawn_tables import read, table_of

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
