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


def read(table, root=None):
    return read_local({"source": "table", "table": str(table), "root": root})


def test_csv_and_parquet_say_the_same(rows, drawn, tmp_path):
    first, second = read(as_csv(tmp_path / "t.csv", rows), drawn), read(as_parquet(tmp_path / "t.parquet", rows), drawn)
    assert first.classes == ("NORMAL", "PNEUMONIA", "COVID19", "TUBERCULOSIS", "EFFUSION", "MASS", "NODULE")
    assert first.root == drawn.resolve() and len(first) == 96 and not first.rejected
    assert set(first.split.tolist()) == {"test", "val", ""}
    assert list(first.slices) == ["site", "age", "sex"]
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
    assert "not there" in images.rejected[0][1] and images.rejected[-1][1] == "no label in the table"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "no column file"),
        (b"file,patient\na.png,1\n", "no column label"),
        (b"file,label\n", "no usable images"),
        (b"file,label\ngone.png,x\n", "no usable images below"),
        (b"file,label\na.png,x\na.png,y\n", "names a.png twice"),
        (b"file,label\n../a.png,x\n", "../a.png: is not below"),
        (b"file,label\n\xff\xfe,x\n", "not a CSV file in UTF-8"),
    ],
)
def test_tables_that_cannot_be_used(run, tmp_path, content, line):
    (tmp_path / "t.csv").write_bytes(content)
    code, out, err = run(train, "data=table", f"data.table={tmp_path / 't.csv'}", f"hydra.run.dir={tmp_path / 'run'}")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1 and line in err
    assert not (tmp_path / "run").exists()


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
    assert set(metrics["slices"]) == {"site", "age"}
    assert sum(value["images"] for value in metrics["slices"]["site"].values()) == metrics["n_test"] == 20
    assert "| site" in (tmp_path / "run" / "MODEL_CARD.md").read_text()

    assert run(audit, *words, f"hydra.run.dir={tmp_path / 'audit'}")[0] == 0
    assert read_json(tmp_path / "audit" / "audit.json")["images"] == 96
