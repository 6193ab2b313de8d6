"""Where known sets may lie, and what is asked where they do not."""

import re

import pytest
from known_sets import by_name, data_of, draw, draw_chexpert, draw_nih, draw_vindr, has_remark, read, write

from cxr.data.listed import read_listed
from cxr.data.places import Places
from cxr.data.sources import read_local
from cxr.errors import UserError
from cxr.options.command_line import read_command, read_options
from cxr.train import main as train


@pytest.fixture(scope="module")
def nih(tmp_path_factory):
    """NIH's set; tests leave it as it is."""
    return draw_nih(tmp_path_factory.mktemp("nih"))


def test_a_new_set_is_one_yaml_file(tmp_path):
    """As conf/README.md says: a choice below --config-dir, with a table of its own form."""
    draw(tmp_path / "set" / "x.png")
    draw(tmp_path / "set" / "y.png", seed=1)
    write(tmp_path / "set" / "befund.csv", ("Bild", "Befund"), ("x.png", "krank"), ("y.png", "gesund"))
    (tmp_path / "conf" / "data").mkdir(parents=True)
    (tmp_path / "conf" / "data" / "mine.yaml").write_text(
        "defaults:\n  - reading/table@_here_\n  - _self_\nsource: table\nroot: ???\ntable: ${data.root}/bef*.csv\n"
        "columns: {file: Bild, label: Befund}\nclasses: {gesund: NORMAL, krank: PNEUMONIA}\n"
    )
    words = ["--config-dir", str(tmp_path / "conf"), "data=mine"]
    command = read_command([*words, f"data.root={tmp_path}/set"], "config")
    assert read_local(next(iter(command.runs.values()))["data"]).counts() == {"NORMAL": 1, "PNEUMONIA": 1}
    with pytest.raises(UserError, match="data.root is missing: give data.root=a folder of images"):
        read_command(words, "config")


def test_other_commands_take_known_sets_too(nih, tmp_path):
    (tmp_path / "best.ckpt").touch()
    words = [f"ckpt={tmp_path}/best.ckpt", "data=nih", f"data.root={nih}", "data.several_labels=drop"]
    images = read_local(read_options(words, "evaluate")["data"])
    assert images.counts() == {"NORMAL": 2, "PNEUMONIA": 2}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("data=nih", "data.root is missing: give data.root=a folder of images"),
        ("data=nih data.root=ROOT/none", "data.root=ROOT/none: no such folder"),
        ("data=tbx11k data.root=ROOT data.split=given", "data.split_lists.train=ROOT/lists/TBX11K_train.txt: must be"),
        ("NIH data.rows={View Position: []}", "must be null or values that columns"),
        ("NIH data.uncertain=maybe", "data.uncertain=maybe: must be drop, absent or present"),
        ("NIH data.disagreement=first", "must be fail, drop or majority"),
        ("NIH data.columns={findings: x}", "must be null or the table's columns for file"),
        ("NIH data.table={training: x.csv}", "must be the path of a CSV or parquet file, a pattern"),
        ("data=folder data.root=ROOT data.label_pattern=NORMAL", "must be null or a regular expression with one"),
        ("data=folder data.root=ROOT data.rows={a: b}", "data.rows={a: b}: only with data=chexpert or data=nih"),
    ],
)
def test_mistakes_get_one_line(nih, run, tmp_path, words, line):
    words = re.split(r" (?=data\.)", words.replace("NIH", "data=nih data.root=ROOT").replace("ROOT", str(nih)))
    code, out, err = run(train, *words, f"hydra.run.dir={tmp_path}/run")
    assert (code, out) == (2, "") and err.startswith("cxr: ") and len(err.splitlines()) == 1
    assert line.replace("ROOT", str(nih)) in err and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("nih", {"rows": {"View": "PA"}}, "no column View, as data.rows says; it has"),
        ("nih", {"rows": {"Patient Gender": "X"}}, "no row has x in patient gender, as data.rows says; it has M"),
        ("nih", {"classes": {"Pneumonie": "TB"}}, "no class Pneumonie in this set, which has Edema"),
        ("folder", {"label_pattern": "(tb)/"}, "paths that data.label_pattern=(tb)/ fits"),
        (
            "chexpert",
            {},
            "data.table.train=ROOT/train.csv: must be the path of a CSV or parquet file; there is none at ",
        ),
        ("chexpert", {}, "or up to 4 folders below ROOT; is data.root the set's download?"),
    ],
)
def test_a_set_that_is_not_as_the_options_say(nih, name, options, line):
    with pytest.raises(UserError, match=re.escape(line.replace("ROOT", str(nih)))) as caught:
        read(name, nih, **options)
    assert "\n" not in str(caught.value)


def test_lists_of_a_split_matter_only_where_it_is_used(tmp_path):
    root = draw_nih(tmp_path)
    (root / "test_list.txt").unlink()
    for split in ("pooled", "folds"):
        images = read("nih", root, split=split)
        assert len(images) == 5
        assert has_remark(images, f"data.split_lists.test={root}/test_list.txt: no such file; only data.split=given")
    advice = r"test_list.txt: must be .* is data.root the set's download\?; without lists: data.split_lists=null"
    with pytest.raises(UserError, match=advice):
        read("nih", root, split="given")
    assert len(read("nih", root, split="given", split_lists=None)) == 5


def test_an_image_in_two_lists_is_refused(tmp_path):
    (draw_nih(tmp_path) / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(UserError, match="data.split_lists: 00000001_000 is in the lists of train and test"):
        read("nih", tmp_path)


@pytest.mark.parametrize("root", ["", "physionet.org", "physionet.org/files/vindr-cxr/1.0.0"])
def test_folders_that_wget_makes_around_a_set_are_passed(tmp_path, root):
    (tmp_path / "physionet.org").mkdir()
    (tmp_path / "physionet.org" / "robots.txt").touch()
    draw_vindr(tmp_path / "physionet.org" / "files" / "vindr-cxr" / "1.0.0")
    assert by_name(read("vindr", tmp_path / root))["agreed.dicom"] == ("TUBERCULOSIS", "", "test")


@pytest.mark.parametrize(
    ("folder", "root", "remark"),
    [
        ("CheXpert-v1.0-small", "CheXpert-v1.0-small", False),
        ("CheXpert-v1.0-small", "", False),
        ("sets/CheXpert-v1.0-small", "", False),
        ("chexpert", "chexpert", True),
    ],
)
def test_paths_may_lead_from_around_the_root_or_from_below_it(tmp_path, folder, root, remark):
    draw_chexpert(tmp_path).joinpath("CheXpert-v1.0-small").rename(tmp_path / "set")
    (tmp_path / folder).parent.mkdir(exist_ok=True)
    (tmp_path / "set").rename(tmp_path / folder)
    images = read("chexpert", tmp_path / root)
    assert images.counts() == {"NORMAL": 2, "PNEUMONIA": 1}
    assert has_remark(images, "not where the table says") == remark, "only a renamed folder is worth a remark"


def test_a_path_below_the_root_goes_before_one_from_around_it(tmp_path):
    for number, place in enumerate(("set/set/a.png", "set/a.png", "set/deep/b.png")):
        draw(tmp_path / place, number)
    table = write(tmp_path / "set" / "deep" / "t.csv", ("file", "label"), ("set/a.png", "TB"), ("b.png", "Normal"))
    images = read_listed({"": table}, tmp_path / "set")
    assert images.file.tolist() == ["set/a.png", "deep/b.png"]


def test_a_name_that_all_images_share_is_looked_at_once(tmp_path, monkeypatch):
    """CheXpert's images are all called view1_frontal.jpg: to look at all of them for each row would take days."""
    for number in range(30):
        (tmp_path / f"p{number}").mkdir()
        (tmp_path / f"p{number}" / "view.jpg").touch()
    looked, places = [], Places(tmp_path)
    monkeypatch.setattr("cxr.data.places.is_mask", lambda file: looked.append(file))
    assert [places.find(f"x/p{number}/view.jpg")[0] for number in range(30)] == [f"p{n}/view.jpg" for n in range(30)]
    assert len(looked) <= 60, "once for each of the two ways to write its name"


def test_data_of_gives_the_options_of_the_command(nih):
    """The tests above read options that were composed for another folder."""
    command = read_command(["data=nih", f"data.root={nih}"], "config")
    assert data_of("nih", nih) == next(iter(command.runs.values()))["data"]
