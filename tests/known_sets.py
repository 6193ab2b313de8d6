"""Known sets as small trees in the form in which each is published, with its file names and columns."""

import csv
import json
from functools import cache

import numpy as np
from drawn_dicom import dicom, save_dicom
from PIL import Image

from cxr.data.sources import read_local
from cxr.options.command_line import read_runs

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


NIH = {
    "00000001_000.png": "No Finding",
    "00000001_001.png": "Edema|Pneumonia",
    "00000002_000.png": "Pneumonia",
    "00000003_000.png": "Edema|Infiltration",
    "00000004_000.png": "No Finding",
    "00000005_000.png": "Pneumonia",
    "00000006_000.png": "Infiltration",
}


@cache
def options_of(name, root, *words):
    """The options of a run of cxr.train; Hydra takes 0.2 s for them."""
    return read_runs([f"data={name}", f"data.root={root}", *words])[0][1]


def data_of(name, root, **options):
    """The options `data.*` of a known set in a folder, and these."""
    text = json.dumps(options_of(name, "/ROOT")["data"]).replace("/ROOT", str(root))
    return json.loads(text) | options


def read(name, root, **options):
    return read_local(data_of(name, root, **options))


def draw(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (30, 40), np.uint8)).save(path)


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


def draw_nih(root, table="Data_Entry_2017.csv", sex="Patient Gender", end=","):
    """NIH's set: images in their folders, both lists, and the table of one of its releases."""
    for number, name in enumerate(NIH):
        draw(root / f"images_{number % 2 + 1:03}" / "images" / name, number)
    (root / "train_val_list.txt").write_text("\n".join([*NIH][:4]) + "\n")
    (root / "test_list.txt").write_text("\n".join([*NIH][4:]))  # as some tools write it: no line break at the end
    header = f"Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,{sex},View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]" + end
    lines = [f"{n},{f},0,{int(n[:8])},57,M,{'AP' if 'Ed' in f else 'PA'},5,5,.1,.1{end}" for n, f in NIH.items()]
    (root / table).write_text("\n".join([header, *lines]) + "\n")
    return root


def draw_chexpert(root, top="CheXpert-v1.0-small"):
    """CheXpert's set in the folder `top` of `root`, as its tables call it."""

    def line(file, view="Frontal", **marks):
        findings = [marks.get(name.replace(" ", "_"), "") for name in CHEXPERT[5:]]
        draw(root / file, len(file))
        return [file, "Female", "68", view, "AP" if view == "Frontal" else "", *findings]

    study = [f"{top}/train/patient{number:05}/study1" for number in range(6)]
    write(
        root / top / "train.csv",
        CHEXPERT,
        line(f"{study[1]}/view1_frontal.jpg", No_Finding="1.0", Support_Devices="1.0"),
        line(f"{study[1]}/view2_lateral.jpg", "Lateral", No_Finding="1.0"),
        line(f"{study[2]}/view1_frontal.jpg", Pneumonia="1.0", Edema="-1.0", No_Finding="0.0"),
        line(f"{study[3]}/view1_frontal.jpg", Pneumonia="-1.0", Lung_Opacity="1.0"),
        line(f"{study[4]}/view1_frontal.jpg", Edema="1.0", Pneumonia="0.0"),
        line(f"{study[5]}/view1_frontal.jpg"),
    )
    valid = f"{top}/valid/patient64541/study1/view1_frontal.jpg"
    write(root / top / "valid.csv", CHEXPERT, line(valid, No_Finding="1.0", Pneumonia="0.0"))
    return root


def draw_vindr(root):
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
        save_dicom(root / "train" / f"{name}.dicom", radiograph(number, PatientID=""))
        for reader, findings in enumerate(of_image):
            lines.append([name, f"R{number + reader}", *(int(f in findings.split("|")) for f in train[2:])])
    write(root / "annotations" / "image_labels_train.csv", train, *lines)
    test = ("image_id", *VINDR, *test)
    save_dicom(root / "test" / "agreed.dicom", radiograph(9, PatientID=""))
    agreed = ["agreed", *(int(finding == "Tuberculosis") for finding in test[1:])]
    write(root / "annotations" / "image_labels_test.csv", test, agreed)
    return root
