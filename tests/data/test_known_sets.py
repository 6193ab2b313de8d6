"""Known sets in one word: small trees in the form in which each set is published, with its file names and columns."""

import csv
import re

import numpy as np
import pytest
from drawn_dicom import dicom, save_dicom
from pydicom.uid import SecondaryCaptureImageStorage

from cxr import audit
from cxr.data.decode import Reading
from cxr.data.precheck import check_images
from cxr.data.sources import read_local
from cxr.data.store import open_store
from cxr.errors import UserError
from cxr.options.command_line import read_command, read_options, read_runs
from cxr.train import main as train

CHEXPERT = (
    *("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly"),
    *("Lung Opacity", "Lung Lesion", "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax"),
    *("Pleural Effusion", "Pleural Other", "Fracture", "Support Devices"),
)
VINDR = (
    *("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation"),
    *("Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst"),
    *("Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax"),
    *("Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis"),
)


def radiograph(seed, **tags):
    return dicom(np.random.default_rng(seed).integers(0, 4096, (64, 64), np.uint16), **tags)


def options_of(name, root, *words):
    return read_runs([f"data={name}", f"data.root={root}", *words])[0][1]


def read(name, root, *words):
    return read_local(options_of(name, root, *words)["data"])


def by_name(images):
    """{file name: (class, patient, split)}."""
    return {
        file.rsplit("/", 1)[-1]: (images.classes[label], patient, split)
        for file, label, patient, split in zip(images.file, images.label, images.patient, images.split, strict=True)
    }


def has_remark(images, text):
    return any(text in remark for remark in images.remarks)


def write(path, header, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *lines])
    return path


@pytest.fixture
def nih(tmp_path, image):
    """(root, write_table): images of NIH's set in their folders, with both lists; the table is the caller's."""
    root = tmp_path / "nih"
    findings = {
        "00000001_000.png": "No Finding",
        "00000001_001.png": "Edema|Pneumonia",
        "00000002_000.png": "Pneumonia",
        "00000003_000.png": "Edema|Infiltration",
        "00000004_000.png": "No Finding",
        "00000005_000.png": "Pneumonia",
        "00000006_000.png": "Infiltration",
    }
    for number, name in enumerate(findings):
        image(root / f"images_{number % 2 + 1:03}" / "images" / name, seed=number)
    names = list(findings)
    (root / "train_val_list.txt").write_text("\n".join(names[:4]) + "\n")
    (root / "test_list.txt").write_text("\n".join(names[4:]))  # as some tools write it: no line break at the end

    def write_table(name, sex, end):
        header = f"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{sex},View Position,"
        header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]" + end
        lines = [
            f"{n},{f},0,{int(n[:8])},57,M,{'AP' if 'Ed' in f else 'PA'},5,5,.1,.1{end}" for n, f in findings.items()
        ]
        (root / name).write_text("\n".join([header, *lines]) + "\n")

    return root, write_table


@pytest.mark.parametrize(
    ("table", "sex", "end"),
    [("Data_Entry_2017.csv", "Patient Gender", ","), ("Data_Entry_2017_v2020.csv", "Patient Sex", "")],
)
def test_nih_in_both_releases(nih, table, sex, end):
    root, write_table = nih
    write_table(table, sex, end)
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
    check_images([options_of("nih", root, "data.split=given", "data.val_fraction=0")])


def test_nih_with_other_wishes(nih):
    root, write_table = nih
    write_table("Data_Entry_2017.csv", "Patient Gender", ",")
    pure = read("nih", root, "data.several_labels=drop")
    assert pure.counts() == {"NORMAL": 2, "PNEUMONIA": 2} and [reason for _, reason in pure.rejected] == [
        "several labels"
    ]
    more = read("nih", root, "data.classes={Infiltration: INFILTRATION}")
    assert more.counts() == {"NORMAL": 2, "PNEUMONIA": 3, "INFILTRATION": 2}, "it joins the classes of the choice"
    lying = read("nih", root, "data.rows={View Position: AP}")
    assert lying.counts() == {"PNEUMONIA": 1} and "view position" not in lying.slices
    assert has_remark(lying, "left out by data.rows: 5 of 7 rows of Data_Entry_2017.csv whose view position is not ap")
    write_table("Data_Entry_2017_v2020.csv", "Patient Sex", "")
    with pytest.raises(UserError, match=r"2 files fit, such as .*2017.csv and .*v2020.csv; name one: data.table=FILE"):
        read("nih", root)
    assert len(read("nih", root, f"data.table={root}/Data_Entry_2017.csv")) == 5


def test_the_audit_says_what_became_of_the_findings(nih, run, tmp_path):
    root, write_table = nih
    write_table("Data_Entry_2017.csv", "Patient Gender", ",")
    words = ("data=nih", f"data.root={root}", "data.split=given", "data.val_fraction=0")
    code, out, err = run(audit.main, *words, f"cache_dir={tmp_path}", f"hydra.run.dir={tmp_path}/a")
    assert code == 0, err
    numbered = [line.partition(". ")[2] for line in out.splitlines() if line[:1].isdigit()]
    assert numbered[0] == f"5 images in {root}: NORMAL 2, PNEUMONIA 3"
    assert "names of classes: No Finding is NORMAL; data.classes changes this" in numbered
    assert any(
        line.startswith("left out by data.classes, with their images: Edema|Infiltration (1)") for line in numbered
    )


@pytest.fixture
def chexpert(tmp_path, image):
    """The folder around CheXpert-v1.0-small."""

    def line(file, view="Frontal", **marks):
        findings = [marks.get(name.replace(" ", "_"), "") for name in CHEXPERT[5:]]
        image(tmp_path / file, seed=len(file))
        return [file, "Female", "68", view, "AP" if view == "Frontal" else "", *findings]

    top = "CheXpert-v1.0-small"
    study = [f"{top}/train/patient{number:05}/study1" for number in range(6)]
    write(
        tmp_path / top / "train.csv",
        CHEXPERT,
        line(f"{study[1]}/view1_frontal.jpg", No_Finding="1.0", Support_Devices="1.0"),
        line(f"{study[1]}/view2_lateral.jpg", "Lateral", No_Finding="1.0"),
        line(f"{study[2]}/view1_frontal.jpg", Pneumonia="1.0", Edema="-1.0", No_Finding="0.0"),
        line(f"{study[3]}/view1_frontal.jpg", Pneumonia="-1.0", Lung_Opacity="1.0"),
        line(f"{study[4]}/view1_frontal.jpg", Edema="1.0", Pneumonia="0.0"),
        line(f"{study[5]}/view1_frontal.jpg"),
    )
    valid = f"{top}/valid/patient64541/study1/view1_frontal.jpg"
    write(tmp_path / top / "valid.csv", CHEXPERT, line(valid, No_Finding="1.0", Pneumonia="0.0"))
    return tmp_path


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


@pytest.mark.parametrize(
    ("uncertain", "counts"),
    [
        ("drop", {"NORMAL": 2, "PNEUMONIA": 1}),
        ("absent", {"NORMAL": 2, "PNEUMONIA": 1}),
        ("present", {"NORMAL": 2, "PNEUMONIA": 2}),
    ],
)
def test_what_is_uncertain_is_dropped_absent_or_present(chexpert, uncertain, counts):
    images = read("chexpert", chexpert, f"data.uncertain={uncertain}")
    assert images.counts() == counts
    assert any(reason == "an uncertain label (-1)" for _, reason in images.rejected) == (uncertain == "drop")
    assert has_remark(images, "edema (1), lung opacity (1)") == (uncertain == "absent"), "its other finding is left out"


@pytest.fixture
def vindr(tmp_path):
    """VinDr-CXR as PhysioNet has it, in DICOM."""
    readings = {
        "all_normal": ["No finding"] * 3,
        "two_pneumonia": ["Pneumonia", "Pneumonia|Consolidation", "Consolidation"],
        "one_pneumonia": ["Consolidation", "Edema", "Pneumonia"],
        "no_two_agree": ["No finding", "Pneumonia", "Tuberculosis"],
        "two_tuberculosis": ["Tuberculosis", "Other diseases|Tuberculosis", "No finding"],
        "both_twice": ["Pneumonia|Tuberculosis", "Pneumonia|Tuberculosis", "Pneumonia"],
    }
    train, test = ("image_id", "rad_id", *VINDR, "Other diseases", "No finding"), ("Other disease", "No finding")
    lines = []
    for number, (name, of_image) in enumerate(readings.items()):
        save_dicom(tmp_path / "train" / f"{name}.dicom", radiograph(number, PatientID=""))
        for reader, findings in enumerate(of_image):
            lines.append([name, f"R{number + reader}", *(int(f in findings.split("|")) for f in train[2:])])
    write(tmp_path / "annotations" / "image_labels_train.csv", train, *lines)
    test = ("image_id", *VINDR, *test)
    save_dicom(tmp_path / "test" / "agreed.dicom", radiograph(9, PatientID=""))
    agreed = ["agreed", *(int(finding == "Tuberculosis") for finding in test[1:])]
    write(tmp_path / "annotations" / "image_labels_test.csv", test, agreed)
    return tmp_path


def test_vindr_by_the_majority_of_its_readers(vindr):
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
    assert set(open_store(images, 64, vindr / "cache")[1].slices) >= {"view", "sex", "age"}, "of the headers"


def test_vindr_where_readers_must_agree(vindr):
    images = read("vindr", vindr, "data.disagreement=drop")
    assert images.counts() == {"NORMAL": 1, "TUBERCULOSIS": 1}
    assert has_remark(images, "0 with a class by majority, 5 without (data.disagreement=drop)")
    with pytest.raises(UserError, match=r"two things of 5 files.*or set data.disagreement=drop or majority"):
        read("vindr", vindr, "data.disagreement=fail")


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
    data = options_of("rsna", tmp_path)["data"]
    assert not any(open_store(images, 64, tmp_path / "cache", Reading.of(data))[1].patient), "and so do the headers"
    assert has_remark(
        images, "rows of stage_2_detailed_class_info.csv that name a file again: 1; each file counts once"
    )


@pytest.mark.parametrize("inside", ["", "COVID-19_Radiography_Dataset"])
def test_covid_radiography(tmp_path, image, inside):
    root = tmp_path / "COVID-19_Radiography_Dataset"
    for folder, name in (("COVID", "COVID"), ("Lung_Opacity", "Lung_Opacity"), ("Normal", "Normal")):
        for kind in ("images", "masks"):
            image(root / folder / kind / f"{name}-1.png", seed=len(name))
    image(root / "Viral Pneumonia" / "images" / "Viral Pneumonia-1.png")
    (root / "COVID.metadata.xlsx").write_bytes(b"x")
    images = read("covid_radiography", tmp_path / inside)
    assert images.counts() == {"NORMAL": 1, "PNEUMONIA": 1, "COVID19": 1, "LUNG_OPACITY": 1}
    assert has_remark(images, "left out: 3 files in folders of masks") and not any(images.patient)


def test_kermany_as_kaggle_packs_it_twice(tmp_path, image):
    files = (
        *("train/NORMAL/IM-0115-0001.jpeg", "train/PNEUMONIA/person1_bacteria_1.jpeg"),
        *("val/NORMAL/NORMAL2-IM-1427-0001.jpeg", "test/PNEUMONIA/person1_virus_6.jpeg"),
    )
    for folder in ("chest_xray", "chest_xray/chest_xray"):
        for number, file in enumerate(files):
            image(tmp_path / folder / file, seed=number)
    images = read("kermany", tmp_path)
    assert by_name(images) == {
        "IM-0115-0001.jpeg": ("NORMAL", "IM-0115", "train"),
        "person1_bacteria_1.jpeg": ("PNEUMONIA", "person1", "train"),
        "NORMAL2-IM-1427-0001.jpeg": ("NORMAL", "NORMAL2-IM-1427", "val"),
        "person1_virus_6.jpeg": ("PNEUMONIA", "person1", "test"),
    }
    assert [reason for _, reason in images.rejected] == ["not in a class folder"] * 4


def test_tbx11k_without_what_has_no_label(tmp_path, image):
    root = tmp_path / "TBX11K"
    names = ("health/h0001.png", "sick/s0001.png", "tb/tb0003.png", "health/h0002.png", "tb/tb0005.png")
    extra = ("test/test_0001.png", "extra/da+db/train/p001.png", "extra/shenzhen/train/CHNCXR_0001_0.png")
    for number, name in enumerate((*names, *extra)):
        image(root / "imgs" / name, seed=number)
    (root / "annotations" / "xml").mkdir(parents=True)
    (root / "annotations" / "xml" / "tb0003.xml").write_text("<annotation/>")
    (root / "lists").mkdir()
    lists = {"train": names[:3], "val": names[3:], "trainval": names}
    for split, listed in lists.items():
        (root / "lists" / f"TBX11K_{split}.txt").write_text("\n".join(listed) + "\n")
        (root / "lists" / f"all_{split}.txt").write_text("\n".join([*listed, *extra[1:]]) + "\n")
    for given in (root, tmp_path):
        images = read("tbx11k", given)
        assert by_name(images) == {
            "h0001.png": ("NORMAL", "", "train"),
            "s0001.png": ("SICK", "", "train"),
            "tb0003.png": ("TUBERCULOSIS", "", "train"),
            "h0002.png": ("NORMAL", "", "test"),
            "tb0005.png": ("TUBERCULOSIS", "", "test"),
        }
        assert has_remark(images, "left out by data.label_pattern: 9 files whose path it does not fit")
        assert has_remark(images, "left out by data.classes, with their images: test (1)") and not images.rejected


def test_a_new_set_is_one_yaml_file(tmp_path, image):
    """As conf/README.md says: a choice below --config-dir, with a table of its own form."""
    image(tmp_path / "set" / "x.png")
    image(tmp_path / "set" / "y.png", seed=1)
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
    root, write_table = nih
    write_table("Data_Entry_2017.csv", "Patient Gender", ",")
    (tmp_path / "best.ckpt").touch()
    words = [f"ckpt={tmp_path}/best.ckpt", "data=nih", f"data.root={root}", "data.several_labels=drop"]
    images = read_local(read_options(words, "evaluate")["data"])
    assert images.counts() == {"NORMAL": 2, "PNEUMONIA": 2}


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("data=nih", "data.root is missing: give data.root=a folder of images"),
        ("data=nih data.root=ROOT/none", "data.root=ROOT/none: no such folder"),
        ("data=tbx11k data.root=ROOT", "data.split_lists.train=ROOT/lists/TBX11K_train.txt: must be the path of"),
        ("NIH data.rows={View: PA}", "no column View, as data.rows says; it has"),
        ("NIH data.rows={Patient Gender: X}", "no row has x in patient gender, as data.rows says; it has M"),
        ("NIH data.rows={View Position: []}", "must be null or values that columns"),
        ("NIH data.uncertain=maybe", "data.uncertain=maybe: must be drop, absent or present"),
        ("NIH data.disagreement=first", "must be fail, drop or majority"),
        ("NIH data.classes={Pneumonie: TB}", "no class Pneumonie in this set, which has Edema"),
        ("NIH data.columns={findings: x}", "must be null or the table's columns for file"),
        ("NIH data.table={training: x.csv}", "must be the path of a CSV or parquet file, a pattern"),
        ("data=folder data.root=ROOT data.label_pattern=NORMAL", "must be null or a regular expression with one"),
        ("data=folder data.root=ROOT data.label_pattern=(tb)/", "paths that data.label_pattern=(tb)/ fits"),
        ("data=folder data.root=ROOT data.rows={a: b}", "data.rows={a: b}: only with data=chexpert or data=nih"),
    ],
)
def test_mistakes_get_one_line(nih, run, tmp_path, words, line):
    root, write_table = nih
    write_table("Data_Entry_2017.csv", "Patient Gender", ",")
    words = re.split(r" (?=data\.)", words.replace("NIH", "data=nih data.root=ROOT").replace("ROOT", str(root)))
    code, out, err = run(train, *words, f"hydra.run.dir={tmp_path}/run")
    assert (code, out) == (2, "") and err.startswith("cxr: ") and len(err.splitlines()) == 1
    assert line.replace("ROOT", str(root)) in err and not (tmp_path / "run").exists()


def test_an_image_in_two_lists_is_refused(nih):
    root, write_table = nih
    write_table("Data_Entry_2017.csv", "Patient Gender", ",")
    (root / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(UserError, match="data.split_lists: 00000001_000 is in the lists of train and test"):
        read("nih", root)


def test_names_that_say_the_class(tmp_path, image):
    """Shenzhen's and Montgomery's form."""
    for number, name in enumerate(("CHNCXR_0001_0.png", "CHNCXR_0327_1.png", "MCUCXR_0001_0.png", "mask.png")):
        image(tmp_path / "CXR_png" / name, seed=number)
    images = read("folder", tmp_path, r"data.label_pattern=_([01])\.png", "data.classes={0: NORMAL, 1: TB}")
    assert images.counts() == {"NORMAL": 2, "TUBERCULOSIS": 1}
    assert has_remark(images, "left out by data.label_pattern: 1 file whose path it does not fit (CXR_png/mask")
