"""Known sets that come with tables, in one word."""

import numpy as np
import pytest
from drawn_dicom import save_dicom
from known_sets import (
    by_name,
    data_of,
    draw_chexpert,
    draw_nih,
    draw_vindr,
    has_remark,
    options_of,
    radiograph,
    read,
    write,
)
from pydicom.uid import SecondaryCaptureImageStorage

from cxr import audit
from cxr.data.decode import Reading
from cxr.data.precheck import check_images
from cxr.data.sources import read_local
from cxr.data.store import open_store
from cxr.errors import UserError


@pytest.mark.parametrize(
    ("table", "sex", "end"),
    [("Data_Entry_2017.csv", "Patient Gender", ","), ("Data_Entry_2017_v2020.csv", "Patient Sex", "")],
)
def test_nih_in_both_releases(tmp_path, table, sex, end):
    root = draw_nih(tmp_path, table, sex, end)
    images = read("nih", root)
    assert by_name(images) == {
        "00000001_000.png": ("NORMAL", "1", "train"),
        "00000001_001.png": ("PNEUMONIA", "1", "train"),
        "00000002_000.png": ("PNEUMONIA", "2", "train"),
        "00000004_000.png": ("NORMAL", "4", "test"),
        "00000005_000.png": ("PNEUMONIA", "5", "test"),
    }
    assert images.file[0] == "images_001/images/00000001_000.png" and not images.rejected
    assert has_remark(
        images, "left out by data.classes, with their images: Edema|Infiltration (1), Infiltration (1); 2 in all"
    )
    assert has_remark(images, f"findings beside a class that do not count: in 1 row of {table}")
    assert has_remark(images, "train 3 (by train_val_list.txt), test 2 (by test_list.txt)")
    assert {sex.lower(), "view position", "originalimage width", "originalimage height"} < images.slices.keys()
    assert not any("[" in name or "]" in name or not name for name in images.slices)
    given = options_of("nih", "/ROOT") | {"data": data_of("nih", root, split="given", val_fraction=0)}
    check_images([given])


def test_nih_with_other_wishes(tmp_path):
    root = draw_nih(tmp_path)
    pure = read("nih", root, several_labels="drop")
    assert pure.counts() == {"NORMAL": 2, "PNEUMONIA": 2} and [reason for _, reason in pure.rejected] == [
        "several labels"
    ]
    more = read_local(options_of("nih", root, "data.classes={Infiltration: INFILTRATION}")["data"])
    assert more.counts() == {"NORMAL": 2, "PNEUMONIA": 3, "INFILTRATION": 2}, "it joins the classes of the choice"
    lying = read("nih", root, rows={"View Position": "AP"})
    assert lying.counts() == {"PNEUMONIA": 1} and "view position" not in lying.slices
    assert has_remark(lying, "left out by data.rows: 5 of 7 rows of Data_Entry_2017.csv whose view position is not ap")
    draw_nih(root, "Data_Entry_2017_v2020.csv", "Patient Sex", "")
    with pytest.raises(UserError, match=r"2 files fit, such as .*2017.csv and .*v2020.csv; name one: data.table=FILE"):
        read("nih", root)
    assert len(read("nih", root, table=f"{root}/Data_Entry_2017.csv")) == 5


def test_the_audit_says_what_became_of_the_findings(run, tmp_path):
    root = draw_nih(tmp_path / "nih")
    words = ("data=nih", f"data.root={root}", "data.split=given", "data.val_fraction=0", "data.copies=exact")
    code, out, err = run(audit.main, *words, f"cache_dir={tmp_path}", f"hydra.run.dir={tmp_path}/a")
    assert code == 0, err
    numbered = [line.partition(". ")[2] for line in out.splitlines() if line[:1].isdigit()]
    assert numbered[0] == f"5 images in {root}: NORMAL 2, PNEUMONIA 3"
    assert "names of classes: No Finding is NORMAL; data.classes changes this" in numbered
    assert any(
        line.startswith("left out by data.classes, with their images: Edema|Infiltration (1)") for line in numbered
    )


@pytest.fixture(scope="module")
def chexpert(tmp_path_factory):
    return draw_chexpert(tmp_path_factory.mktemp("chexpert"))


@pytest.fixture(scope="module")
def vindr(tmp_path_factory):
    return draw_vindr(tmp_path_factory.mktemp("vindr"))


@pytest.mark.parametrize("inside", ["", "CheXpert-v1.0-small"])
def test_chexpert_from_its_folder_or_the_one_around_it(chexpert, inside):
    images = read("chexpert", chexpert / inside)
    rows = [
        (images.classes[label], patient, split)
        for label, patient, split in zip(images.label, images.patient, images.split, strict=True)
    ]
    assert rows == [
        ("NORMAL", "patient00001", "train"),
        ("PNEUMONIA", "patient00002", "train"),
        ("NORMAL", "patient64541", "test"),
    ], "an uncertain edema does not make a sure pneumonia uncertain"
    reasons = {file.split("/study1")[0][-12:]: reason for file, reason in images.rejected}
    assert reasons == {"patient00003": "an uncertain label (-1)", "patient00005": "no label in the table"}
    assert has_remark(images, "left out by data.rows: 1 of 6 rows of train.csv whose frontal/lateral is not frontal")
    assert has_remark(images, "left out by data.classes, with their images: edema (1)")
    assert list(images.slices) == ["sex", "age", "ap/pa"], "findings define no slices"
    assert not has_remark(images, "not where the table says"), "its paths lead from the folder around it"


@pytest.mark.parametrize(
    ("uncertain", "counts"),
    [
        ("drop", {"NORMAL": 2, "PNEUMONIA": 1}),
        ("absent", {"NORMAL": 2, "PNEUMONIA": 1}),
        ("present", {"NORMAL": 2, "PNEUMONIA": 2}),
    ],
)
def test_what_is_uncertain_is_dropped_absent_or_present(chexpert, uncertain, counts):
    images = read("chexpert", chexpert, uncertain=uncertain)
    assert images.counts() == counts
    assert any(reason == "an uncertain label (-1)" for _, reason in images.rejected) == (uncertain == "drop")
    assert has_remark(images, "edema (1), lung opacity (1)") == (uncertain == "absent"), "its other finding is left out"


def test_vindr_by_the_majority_of_its_readers(vindr, tmp_path):
    images = read("vindr", vindr)
    assert by_name(images) == {
        "all_normal.dicom": ("NORMAL", "", "train"),
        "two_pneumonia.dicom": ("PNEUMONIA", "", "train"),
        "two_tuberculosis.dicom": ("TUBERCULOSIS", "", "train"),
        "agreed.dicom": ("TUBERCULOSIS", "", "test"),
    }
    reasons = dict(images.rejected)
    assert reasons.keys() == {"train/no_two_agree.dicom", "train/both_twice.dicom"}
    assert "none of them more than half" in reasons["train/no_two_agree.dicom"]
    assert "several classes" in reasons["train/both_twice.dicom"]
    assert has_remark(images, "rows with different labels: 5 of 7 files; 2 with a class by majority, 3 without")
    assert has_remark(images, "left out by data.classes, with their images: consolidation (1)"), (
        "two of three saw no class"
    )
    assert {*np.concatenate(list(images.slices.values())).tolist()} == {""}, "readers are no slices"
    assert set(open_store(images, 64, tmp_path)[1].slices) >= {"view", "sex", "age"}, "of the headers"


def test_vindr_where_readers_must_agree(vindr):
    images = read("vindr", vindr, disagreement="drop")
    assert images.counts() == {"NORMAL": 1, "TUBERCULOSIS": 1}
    assert has_remark(images, "0 with a class by majority, 5 without (data.disagreement=drop)")
    with pytest.raises(UserError, match=r"two things of 5 files.*or set data.disagreement=drop or majority"):
        read("vindr", vindr, disagreement="fail")


def test_rsna_has_a_row_for_each_box_and_no_patients(tmp_path):
    rows = {"a": "Lung Opacity", "b": "Normal", "c": "No Lung Opacity / Not Normal"}
    for number, name in enumerate(rows):
        header = radiograph(number, PatientID=name, SOPClassUID=SecondaryCaptureImageStorage)
        save_dicom(tmp_path / "stage_2_train_images" / f"{name}.dcm", header)
    lines = [*rows.items(), ("a", "Lung Opacity")]
    write(tmp_path / "stage_2_detailed_class_info.csv", ("patientId", "class"), *lines)
    write(tmp_path / "stage_2_train_labels.csv", ("patientId", "x", "y", "width", "height", "Target"))
    images = read("rsna", tmp_path)
    assert by_name(images) == {
        "a.dcm": ("PNEUMONIA", "", ""),
        "b.dcm": ("NORMAL", "", ""),
        "c.dcm": ("NOT NORMAL", "", ""),
    }, "patientId names an image"
    data = data_of("rsna", tmp_path)
    assert not any(open_store(images, 64, tmp_path / "cache", Reading.of(data))[1].patient), "and so do the headers"
    assert has_remark(images, "rows of stage_2_detailed_class_info.csv that name a file again: 1; each")
