"""What the audit says of images that were made to be found."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from known_sets import data_of
from PIL import Image

from cxr.audit import audit_images, main, picture_pairs
from cxr.data.sources import read_folder
from cxr.errors import UserError


@pytest.fixture
def bad(image, tmp_path):
    """A small set, laid out with a given split, that has one of each fault."""
    root = tmp_path / "images"
    for i in range(6):
        image(root / "train" / "NORMAL" / f"n{i}.png", seed=i, size=(150, 150))
        image(root / "train" / "TB" / f"t{i}.jpg", seed=10 + i, size=(150, 150))
        image(root / "test" / "NORMAL" / f"n{i}.png", seed=20 + i, size=(150, 150))
        image(root / "test" / "TB" / f"t{i}.jpg", seed=30 + i, size=(150, 150))
    (root / "train" / "TB" / "text.jpg").write_text("no image")
    image(root / "train" / "TB" / "tiny.png", seed=40, size=(99, 200))
    Image.new("L", (150, 150), 7).save(root / "train" / "TB" / "blank.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (150, 150, 3), np.uint8)).save(
        root / "train" / "TB" / "colour.png"
    )
    image(root / "really.png", seed=41, size=(150, 150)).rename(root / "train" / "TB" / "named.jpg")
    shutil.copy(root / "train" / "NORMAL" / "n0.png", root / "train" / "TB" / "twice.png")  # same bytes, two labels
    Image.open(root / "test" / "TB" / "t1.jpg").save(root / "train" / "TB" / "again.png")  # same pixels, across
    image(root / "train" / "NORMAL" / "person7_virus_1.png", seed=50, size=(150, 150))
    image(root / "test" / "NORMAL" / "person7_virus_2.png", seed=51, size=(150, 150))
    rows = ["file,patient", "train/NORMAL/n1.png,Kim", "train/NORMAL/n2.png,Kim", "test/NORMAL/n1.png,Kim"]
    rows += [f"{side}/NORMAL/person7_virus_{i}.png,person7" for i, side in ((1, "train"), (2, "test"))]
    (root / "manifest.csv").write_text("\n".join(rows))
    return root


def test_every_fault_is_found_and_pictured(run, bad, tmp_path):
    code, out, err = run(
        main, "data=folder", f"data.root={bad}", f"cache_dir={tmp_path}/c", f"hydra.run.dir={tmp_path}/r"
    )
    assert code == 0, err
    found = json.loads((tmp_path / "r" / "audit.json").read_text())
    assert found["images"] == 32 and found["rejected"] == [
        {"file": "train/TB/text.jpg", "reason": "not a JPEG, PNG or DICOM image"}
    ]
    assert found["wrong_type"] == [{"file": "train/TB/named.jpg", "is": "PNG"}]
    assert found["tiny"] == [{"file": "train/TB/tiny.png", "width": 99, "height": 200}]
    assert found["blank"] == ["train/TB/blank.png"] and found["coloured"] == ["train/TB/colour.png"]
    copies = {frozenset(c["files"]): c for c in found["copies"]}
    twice = copies.pop(frozenset(("train/NORMAL/n0.png", "train/TB/twice.png")))
    assert (twice["kind"], twice["two_labels"], twice["across"]) == ("same bytes", True, False)
    again = copies.pop(frozenset(("test/TB/t1.jpg", "train/TB/again.png")))
    assert (again["kind"], again["two_labels"], again["across"]) == ("same pixels", False, True)
    assert not copies
    assert found["leaks"] == {
        "patients": {
            "sure": {"Kim": {"test": 1, "elsewhere": 2}},
            "possible": {"person7": {"test": 1, "elsewhere": 1}},
        },
        "copies": ["train/TB/again.png"],
        "images": 4,
    }
    assert len(list((tmp_path / "r" / "copies").iterdir())) == 2
    for line in ("pairs with different labels", "test/TB/t1.jpg = train/TB/again.png", "audit.json"):
        assert line in out


def test_pictures_show_each_image_among_many_copies_once(image, tmp_path):
    """Three that are alike make three pairs, two of which show all of them, those with different labels first; the
    numbers are those of audit.json."""
    files = [image(tmp_path / f"{name}.png").name for name in "abcd"]
    facts = {"labels": ("TB", "TB"), "patients": ("", ""), "splits": ("", ""), "kind": "near", "likeness": 1.0}
    pairs = [(0, 1), (0, 2), (1, 2), (2, 3)]
    copies = [{"files": [files[i], files[k]], "two_labels": (i, k) == (1, 2), **facts} for i, k in pairs]
    picture_pairs(tmp_path, copies, tmp_path / "copies")
    assert sorted(path.name for path in (tmp_path / "copies").iterdir()) == ["001.png", "003.png", "004.png"]


def test_the_reference_set(run, cxr4, tmp_path):
    """The leaks that its README counts."""
    from cxr.data.audit import describe_leaks
    from cxr.data.sources import read_folder

    found = describe_leaks(read_folder(cxr4), [])["patients"]
    assert len(found["sure"]) == 9 and sum(p["elsewhere"] for p in found["sure"].values()) == 22
    assert len(found["possible"]) == 170 and sum(p["elsewhere"] for p in found["possible"].values()) == 453


def test_wrong_options_are_one_line(run, tmp_path):
    code, _, err = run(main, "data=folder", f"data.root={tmp_path}/no")
    assert code == 2 and err.startswith("cxr: data.root=") and err.count("\n") == 1


def test_a_set_that_cannot_be_trained_on_is_described_all_the_same(run, image, tmp_path):
    """Its splits are a matter of training; the audit says so, and goes on."""
    for number in range(12):
        image(tmp_path / "set" / "NORMAL" / f"person{number}_1.png", number)
    image(tmp_path / "set" / "plots" / "person99_1.png", 99)
    out = run(main, "data=folder", f"data.root={tmp_path / 'set'}", *folders(tmp_path, "few"))[1]
    assert "hardly classes: plots (1 image); data.classes='{plots: null}' leaves one out" in out
    assert "training would refuse these images: class PLOTS has 1 image of 1 patient, but none left for" in out


def test_strict_makes_every_doubt_an_error(run, drawn, tmp_path):
    folder = tmp_path / "set"
    for name in ("NORMAL", "TURBERCULOSIS"):
        (folder / "train" / name).mkdir(parents=True)
        files = [file for file in sorted((drawn / "train" / name).iterdir()) if not file.name.startswith("person")]
        for file in files[:6]:  # whose names say no patient
            shutil.copy(file, folder / "train" / name)
    words = ["data=folder", f"data.root={folder}", "data.on_bad=strict", "data.copies=exact"]
    assert run(main, *words, *folders(tmp_path, "a"))[::2] == (
        2,
        f"cxr: data.on_bad=strict: {folder} is doubtful: no patient is known (if each image is of another one: "
        "'data.patient_pattern=(.+)'); python -m cxr.audit says more; repair the set, or use skip\n",
    )

    def audit(name, **options):
        options = {"on_bad": "strict", "copies": "exact", "patient_pattern": "(.+)", **options}
        (tmp_path / name).mkdir()
        audit_images({"data": data_of("folder", folder, **options), "cache_dir": f"{tmp_path}/cache"}, tmp_path / name)

    audit("b")
    Image.new("L", (300, 100)).save(folder / "train" / "NORMAL" / "strip.png")
    (folder / "train" / "NORMAL" / "text.png").write_text("no image")
    with pytest.raises(UserError) as caught:
        audit("c")
    for doubt in (
        "rejected: 1 (train/NORMAL/text.png)",
        "odd shape: 1 (train/NORMAL/strip.png)",
        "blank: 1",
    ):
        assert doubt in str(caught.value)
    with pytest.raises(UserError, match="data.on_bad=fail: 1 file in"):
        audit("d", on_bad="fail")


def test_what_is_not_used_is_counted_by_reason(run, drawn, tmp_path):
    """Reasons that differ in numbers are one; what is beyond the most frequent five is counted; audit.json has all."""
    cut = [(f"{n}.dcm", f"truncated: {n:,} of 8,192 bytes") for n in range(1000, 1003)]
    rare = [(f"{letter}.png", f"reason {letter}") for letter in "ABCDEF"]
    images = replace(read_folder(drawn), rejected=(*cut, ("g.png", "empty"), ("h.png", "empty"), *rare))
    (line,) = images.not_used()
    assert line == (
        "not used: 11 files (3 files: truncated: … of … bytes (such as 1000.dcm); 2 files: empty (such as g.png); "
        "1 file: reason A (A.png); 1 file: reason B (B.png); 1 file: reason C (C.png); 3 files: 3 more reasons)"
    )
    assert "1 file: 1 more reason)" in replace(images, rejected=images.rejected[:-2]).not_used()[0]
    shutil.copytree(drawn, tmp_path / "set")
    (tmp_path / "set" / "train" / "NORMAL" / "text.png").write_text("no image")
    out = run(main, "data=folder", f"data.root={tmp_path}/set", "data.copies=exact", *folders(tmp_path, "a"))[1]
    assert "not used: 1 file (1 file: not a JPEG, PNG or DICOM image (train/NORMAL/text.png)); audit.json lists" in out
    rejected = json.loads((tmp_path / "a" / "audit.json").read_text())["rejected"]
    assert [row["file"] for row in rejected] == ["train/NORMAL/text.png"]


def folders(tmp_path, name):
    return f"cache_dir={tmp_path}/cache", f"hydra.run.dir={tmp_path}/{name}"
