"""Many images: a stopped command goes on, the table may be Parquet, and images that are no chests are marked."""

import csv
import shutil

import numpy as np
import pytest
from PIL import Image

from cxr import predict
from cxr.data.reading_ahead import read_ahead
from cxr.errors import UserError
from cxr.files.run_folder import FAMILIAR
from cxr.files.writing import read_json, read_table
from cxr.jobs import file_predictions
from cxr.jobs.prediction_table import PredictionTable


@pytest.fixture
def words(folder, drawn):
    return f"ckpt={folder}", f"source={drawn / 'test'}", "data.batch_size=2"


def test_a_stopped_command_goes_on_where_it_was(run, words, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    assert run(predict.main, *words, f"out={whole}")[0] == 0
    read, seen = file_predictions.decode, []

    def stop_soon(path, *arguments):
        seen.append(path)
        if len(seen) > 9:
            raise RuntimeError("a bug")
        return read(path, *arguments)

    monkeypatch.setattr(file_predictions, "decode", stop_soon)
    with pytest.raises(RuntimeError, match="a bug"):
        run(predict.main, *words, f"out={out}")
    monkeypatch.setattr(
        file_predictions, "decode", lambda path, *arguments: (seen.append(path), read(path, *arguments))[1]
    )
    (part,) = tmp_path.glob("out.csv.*.part")
    assert f"the rows so far are in {part}; the same command resumes there" in capsys.readouterr().err
    there, seen[:] = len(read_table(part)), []
    with part.open("ab") as file:
        file.write('"half a row,with, a quo\r가'.encode()[:-1])  # as a power cut leaves it
    code, _, err = run(predict.main, *words, f"out={out}")
    assert code == 0 and there and f"the rows of {there} files are there already" in err
    assert len(seen) + there == len(read_table(whole)), "no image was read twice"
    ours, theirs = read_table(out), read_table(whole)
    assert [(row["file"], row["prediction"]) for row in ours] == [(row["file"], row["prediction"]) for row in theirs]
    assert not part.exists()
    code, _, err = run(predict.main, *words, f"out={out}")
    assert code == 2 and "that does not exist yet" in err


def test_pictures_go_on_with_their_rows(run, words, tmp_path, monkeypatch):
    pytest.importorskip("captum", reason="captum is not installed (pip install captum)")
    words = *words, f"out={tmp_path / 'out.csv'}", f"heatmaps={tmp_path / 'maps'}"
    predict_batch, batches = file_predictions.predict_batch, []

    def stop_after_two(*arguments):
        batches.append(arguments)
        rows = [*predict_batch(*arguments)]
        if len(batches) > 2:
            raise RuntimeError("a bug, when the pictures are there and their rows are not")
        return rows

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="a bug"):
        patch.setattr(file_predictions, "predict_batch", stop_after_two)
        run(predict.main, *words)
    assert len(list((tmp_path / "maps").iterdir())) == 6
    assert run(predict.main, *words)[0] == 0
    rows = read_table(tmp_path / "out.csv")
    assert sorted(row["heatmap"] for row in rows) == sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert all(row["heatmap"].endswith(f"_{row['file'].rsplit('/', 1)[1]}.png") for row in rows)


def test_negatives_and_names_like_formulas(run, folder, drawn, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    chest = Image.open(sorted((drawn / "test" / "NORMAL").iterdir())[0]).convert("L")
    chest.save("=1+1.png")
    chest.point(lambda grey: 255 - grey).save("b.png")
    code, _, err = run(predict.main, f"ckpt={folder}", "source=.", "out=out.csv")
    rows = read_table(tmp_path / "out.csv")
    assert code == 0 and [(row["file"], row["negative"]) for row in rows] == [("./=1+1.png", ""), ("b.png", "yes")]
    assert "1 image looks like a negative: b.png (data.negatives=keep)" in err


def test_other_options_begin_anew(run, words, tmp_path):
    (tmp_path / "out.csv.0123456789abcdef.part").write_text("file\r\nx\r\n")
    assert run(predict.main, *words, f"out={tmp_path / 'out.csv'}")[0] == 0
    assert "x" not in {row["file"] for row in read_table(tmp_path / "out.csv")}


def test_two_commands_do_not_write_one_table(run, words, tmp_path):
    assert run(predict.main, *words, f"out={tmp_path / 'out.txt'}")[::2] == (
        2,
        f"cxr: out={tmp_path / 'out.txt'}: must end with .csv or .parquet\n",
    )
    with PredictionTable(tmp_path / "out.csv", ["file"], "key") as table:
        with (
            pytest.raises(UserError, match="another command writes it"),
            PredictionTable(tmp_path / "out.csv", ["file"], "another network's"),
        ):
            pass
        with table.writing() as writer:
            writer.writerow({"file": "x"})
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"], "nothing is left beside it"


def test_parquet_has_the_rows_of_the_csv(run, words, drawn, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    shutil.copytree(drawn / "test" / "NORMAL", tmp_path / "in")
    (tmp_path / "in" / "new\nline,'\".png").write_bytes(b"no image")
    words = words[0], f"source={tmp_path / 'in'}"
    for name in ("out.csv", "out.parquet"):
        assert run(predict.main, *words, f"out={tmp_path / name}")[0] == 1
    with (tmp_path / "out.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    found = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [row["file"] for row in found] == [row["file"] for row in expected]
    for ours, theirs in zip(found, expected, strict=True):
        assert ours["error"] == theirs["error"] and (ours["prob_NORMAL"] is None) == (theirs["prob_NORMAL"] == "")
        if theirs["prob_NORMAL"]:
            assert ours["prob_NORMAL"] == float(theirs["prob_NORMAL"])
    assert not list(tmp_path.glob("*.part"))


def test_images_that_are_no_chests_are_marked(run, folder, drawn, tmp_path):
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted((drawn / "test" / "NORMAL").iterdir())[:8]):
        shutil.copy(path, tmp_path / "in" / f"chest{number}.png")
    Image.fromarray(rng.integers(0, 256, (64, 64), dtype=np.uint8)).save(tmp_path / "in" / "noise.png")
    squares = np.kron(np.indices((8, 8)).sum(0) % 2, np.full((8, 8), 255))
    Image.fromarray(squares.astype(np.uint8)).save(tmp_path / "in" / "squares.png")
    code, _, err = run(predict.main, f"ckpt={folder}", f"source={tmp_path / 'in'}", f"out={tmp_path / 'out.csv'}")
    rows = {row["file"].rsplit("/", 1)[1]: float(row["unfamiliar"]) for row in read_table(tmp_path / "out.csv")}
    assert code == 0 and rows["noise.png"] > 1 and rows["squares.png"] > 1
    assert sum(score > 1 for name, score in rows.items() if name.startswith("chest")) <= 1
    assert "unlike the training images" in err
    assert 0 <= read_json(folder / "metrics.json")["unfamiliar"]["share"] < 0.2


def test_without_its_file_familiarity_is_not_known_and_a_damaged_one_is_an_error(run, folder, drawn, tmp_path):
    shutil.copytree(folder / "checkpoints", tmp_path / "checkpoints")
    one = sorted((drawn / "test" / "NORMAL").iterdir())[0]
    words = f"ckpt={tmp_path / 'checkpoints' / 'best.ckpt'}", f"source={one}"
    familiar = tmp_path / "checkpoints" / f"best{FAMILIAR}"
    assert familiar.exists()
    familiar.write_bytes(b"PK no")
    code, _, err = run(predict.main, *words)
    assert code == 2 and f"best{FAMILIAR}: damaged" in err and err.count("\n") == 1
    familiar.unlink()
    code, out, err = run(predict.main, *words)
    assert code == 0 and "unfamiliar images will not be marked" in err
    assert next(csv.DictReader(out.splitlines()))["unfamiliar"] == ""


def test_reading_ahead_keeps_the_order_and_few_results():
    begun, taken = [], 0
    results = read_ahead(lambda item: begun.append(item) or item, range(100), ahead=8, threads=3)
    for expected, item in enumerate(results):
        taken += 1
        assert item == expected and len(begun) <= taken + 8
    assert taken == 100
