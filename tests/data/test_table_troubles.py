"""Tables as people have them: damaged, contradictory, from other programs and systems."""

import logging
import pickle
import re
import unicodedata
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from cxr import audit, train
from cxr.data.listed import read_listed
from cxr.data.naming import Naming
from cxr.errors import UserError, lines_of
from cxr.options.command_line import read_runs
from cxr.training.build import build_data


@pytest.fixture
def table(tmp_path):
    """Read a table of these lines, beside the images a.png to d.png."""
    for name in ("a", "b", "c", "d"):
        Image.new("L", (64, 64), 90).save(tmp_path / f"{name}.png")

    def read(*lines, header="file,label,patient", encoding="utf-8", **options):
        (tmp_path / "t.csv").write_bytes("\n".join([header, *lines]).encode(encoding))
        return read_listed({"": tmp_path / "t.csv"}, None, Naming.of(options))

    return read


def labels(images):
    return {file: images.classes[i] for file, i in zip(images.file.tolist(), images.label.tolist(), strict=True)}


def test_columns_of_the_option_go_before_those_of_usual_names(table):
    lines = ("a.png,OLD,p1,NORMAL,q1", "b.png,OLDER,p2,TB,q2")
    header = "file,label,patient,diagnosis,mrn"
    assert table(*lines, header=header).patient.tolist() == ["p1", "p2"]
    images = table(*lines, header=header, columns={"label": "diagnosis", "patient": "mrn"})
    assert images.classes == ("NORMAL", "TUBERCULOSIS") and images.patient.tolist() == ["q1", "q2"]


def test_a_pattern_for_patients_goes_before_their_column(table):
    images = table("a.png,NORMAL,p", "b.png,TB,p", patient_pattern="([a-z])[.]")
    assert images.patient.tolist() == ["a", "b"]
    assert "patients by data.patient_pattern: 2, in 2 images" in images.remarks
    with pytest.raises(UserError, match="fits the path of none of the 2 images, such as a.png"):
        table("a.png,NORMAL,p", "b.png,TB,p", patient_pattern="x(y)")


@pytest.mark.parametrize(
    ("lines", "columns", "reason"),
    [
        (('a.png,NORMAL,"an open quote', "b.png,TB,p"), "file,label,note", "line 3: unexpected end of data"),
        (("a.png,NORMAL,p, left, right",), "file,label,patient", "line 2: more values than columns; quote a value"),
        (("a.png,NORMAL,TB",), "file,label,Label", "has 2 columns called label; rename one"),
        (("a.png,NORMAL,p", ",TB,p"), "file,label,patient", "row 2 has no file"),
        (("a\0.png,NORMAL,p",), "file,label,patient", "no possible name of a file"),
        (("a" * 300 + ".png,NORMAL,p",), "file,label,patient", "no possible name of a file"),
        (("a,x",), "foto,note", 'no column for file and label.*data.columns=.{file: "COLUMN", label: "COLUMN"}'),
    ],
)
def test_damaged_tables_are_refused_with_the_line(table, lines, columns, reason):
    with pytest.raises(UserError, match=reason):
        table(*lines, header=columns)


def test_all_mistakes_in_a_header_are_reported_at_once(table):
    options = {"columns": {"label": "befunde", "patient": "fal"}, "rows": {"view": "PA", "Site": "B"}, "hospital": "x"}
    with pytest.raises(UserError) as caught:
        table("a.png,TB,p,A", header="bild,befund,fall,site", **options)
    lines = [line.partition("t.csv: ")[2] for line in lines_of(caught.value)]
    assert [line.split(",")[0].split(" (")[0] for line in lines] == [
        "no column view",
        "no row has b in site",
        "no column befunde",
        "no column fal",
        "no column x",
        "no column for file; it has bild",
    ]
    assert "(the nearest is befund)" in lines[2]
    assert lines_of(pickle.loads(pickle.dumps(caught.value))) == lines_of(caught.value), "it may come from a process"


def test_all_mistakes_in_rows_are_reported_at_once(table):
    lines = ("a.png,TB,p,train", "a.png,TB,q,test", "b.png,TB|NORMAL,r,test", "c.png,TB,s,", "c.png,NORMAL,s,")
    with pytest.raises(UserError) as caught:
        table(*lines, header="file,label,patient,split", classes={"SICK": None, "OLD": "TB"})
    several, classes, *parts = lines_of(caught.value)
    assert "1 of 5 rows name several labels, such as b.png (TB|NORMAL)" in several
    assert "no class SICK or OLD in this set" in classes
    assert [line.partition("says two things of ")[2].partition(";")[0] for line in parts] == [
        "1 file (c.png: label TB and NORMAL)",
        "1 file (a.png: patient p and q)",
        "1 file (a.png: split train and test)",
    ]


def test_mistakes_end_a_command_in_ten_lines_at_most(run, table, tmp_path):
    table("a.png,NORMAL,p")
    wrong = ", ".join(f"column {number}: 1" for number in range(12))
    words = ("data=table", f"data.table={tmp_path}/t.csv", f"data.rows={{{wrong}}}", f"hydra.run.dir={tmp_path}/run")
    code, out, error = run(train.main, *words)
    lines = error.splitlines()
    assert (code, out, len(lines)) == (2, "", 10) and all(line.startswith("cxr: ") for line in lines)
    assert "no column column 0" in lines[0] and lines[-1] == "cxr: 3 more mistakes"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("header", "line", "proposal"),
    [
        ("bild,befund,fall", "a.png,TB,7", 'file: "bild", label: "befund", patient: "fall"'),
        ("x,y,z,use", "a.png,TB,7,train", 'file: "x", label: "y", split: "use"'),
        ("영상,진단,환자,구분", "a,b,7,ㄱ", 'file: "영상", label: "진단", patient: "환자", split: "구분"'),
        ("photo path,pathology,patient age", "a.png,NORMAL,57", 'file: "photo path", label: "pathology"'),
    ],
)
def test_columns_are_proposed_by_their_names_and_content(table, header, line, proposal):
    other = line.replace("TB", "Normal").replace("NORMAL", "TB").replace("a", "b").replace("7", "8")
    with pytest.raises(UserError, match="name them with data.columns='{" + re.escape(proposal) + "}'$"):
        table(line, other.replace("trbin", "test"), header=header)


def test_columns_for_patient_and_split_are_asked_about(table):
    lines, header = ("a.png,TB,1,train", "b.png,NORMAL,2,test"), "file,label,subject,usage"
    question = """no column of t.csv is taken for patient and split; is it data.columns='{patient: "subject", """
    assert any(question in remark for remark in table(*lines, header=header).remarks)
    images = table(*lines, header=header, columns={"patient": "subject", "split": None})
    assert not any("is taken for" in remark for remark in images.remarks) and images.patient.tolist() == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("sep=;\nfile;label\na.png;NORMAL\nb.png;TB", "utf-8"),
        ("\n\nfile,label\na.png,NORMAL\nb.png,TB", "utf-8"),
        ("file,label\ra.png,NORMAL\rb.png,TB", "utf-8"),
        ("file\tlabel\na.png\tNORMAL\nb.png\tTB", "utf-16-le"),
        ("file;label;size[w,h,depth,bits]\na.png;NORMAL;1\nb.png;TB;2", "utf-8"),
    ],
    ids=["sep=", "blank lines", "CR", "UTF-16 without a mark", "commas in a header"],
)
def test_headers_as_programs_write_them(table, text, encoding):
    assert labels(table(header=text, encoding=encoding)) == {"a.png": "NORMAL", "b.png": "TUBERCULOSIS"}


def test_names_of_macos_and_in_other_case(table, tmp_path):
    nfd, nfc = (unicodedata.normalize(form, "영상-é") for form in ("NFD", "NFC"))
    Image.new("L", (64, 64), 90).save(tmp_path / f"{nfd}.png")
    images = table(f"{nfc}.png,NORMAL,{nfc}", f"A.PNG,TB,{nfd}")
    assert set(images.file.tolist()) == {f"{nfd}.png", "a.png"} and set(images.patient.tolist()) == {nfc}


def test_a_mask_or_a_text_of_the_same_name_is_not_the_image(table, tmp_path):
    (tmp_path / "Lung_Mask_Images").mkdir()
    Image.new("L", (64, 64), 255).save(tmp_path / "Lung_Mask_Images" / "a.png")
    (tmp_path / "a.json").write_text("{}")
    assert table("a,NORMAL,p", "b,TB,q").file.tolist() == ["a.png", "b.png"]


def test_one_column_a_class_with_true_and_false(table):
    lines, header = ("a.png,True,False,1", "b.png,False,True,0"), "file,normal,tb,smoker"
    with pytest.raises(UserError, match="name several labels.*such as a column that is no class"):
        table(*lines, header=header)
    images = table(*lines, header=header, classes={"smoker": None})
    assert labels(images) == {"a.png": "NORMAL", "b.png": "TUBERCULOSIS"}


def test_rows_that_agree_in_other_words_or_know_less(table):
    images = table("a.png,TB,p", "a.png,Tuberculosis,", "b.png,NORMAL,", "b.png,normal,q", "c.png,TB|Tuberculosis,r")
    assert images.file.tolist() == ["a.png", "b.png", "c.png"] and images.patient.tolist() == ["p", "q", "r"]


def test_classes_may_be_called_as_cxr_does(table):
    lines = ("a.png,TB,p", "b.png,Normal,q", "c.png,other,r")
    images = table(*lines, classes={"TUBERCULOSIS": None, "other": "SICK"})
    assert labels(images) == {"b.png": "NORMAL", "c.png": "SICK"}


def test_a_long_table_with_five_troubles_ends_in_ten_lines(run, tiny, tmp_path, caplog):
    """From a Korean Excel, another machine, with missing labels, values of split that nobody knows, and lost files; in
    training too, before the first epoch."""
    caplog.set_level(logging.INFO)
    rng = np.random.default_rng(0)
    lines, usable, splits = ["파일;진단;환자;구분"], Counter(), Counter()
    for number in range(1000):
        name, split = f"필름{number:04}.png", ("train", "dev", "holdout")[number // 2 % 3]
        label = ("정상", "폐렴", "결핵")[number // 2 % 3] if number % 25 else ("", "nan", "?", "-1")[number // 25 % 4]
        lines.append(f"D:\\병원\\{name};{label};환자{number // 2};{split}")
        if number % 50 != 7:  # else it is not there
            usable[label] += 1
            splits[split] += number % 25 > 0
            (tmp_path / f"{number % 5}").mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (40, 40), np.uint8)).save(tmp_path / f"{number % 5}" / name)
    (tmp_path / "표.csv").write_bytes("\r\n".join(lines).encode("cp949"))
    words = [
        "data=table",
        f"data.table={tmp_path / '표.csv'}",
        *tiny,
        f"cache_dir={tmp_path}/cache",
        "data.copies=exact",
    ]
    code, _, error = run(audit.main, *words, f"hydra.run.dir={tmp_path}/a")
    assert code == 2 and error.count("\n") == 1
    columns = """data.columns={file: "파일", label: "진단", patient: "환자", split: "구분"}"""
    advice = f"no column for file and label; it has 파일, 진단, 환자, 구분; name them with {columns}"
    assert advice in error.replace("'", "")
    code, out, _ = run(audit.main, *words, columns, f"hydra.run.dir={tmp_path}/b")
    numbered = [line for line in out.splitlines() if re.match(r"\d+\. ", line)]
    assert code == 0 and len(numbered) <= 10
    for part in (
        f"NORMAL {usable['정상']}, PNEUMONIA {usable['폐렴']}, TUBERCULOSIS {usable['결핵']}",
        "표.csv is read as CP949 with semicolons between its columns",
        "columns of 표.csv: file is 파일, label is 진단, patient is 환자, split is 구분",
        f"dev ({splits['dev']} images), holdout ({splits['holdout']} images); these images count as without one",
        "정상 is NORMAL",
        "no label in the table (such as",
        "an uncertain label (-1) (such as",
        f"not found below {tmp_path} (such as",
    ):
        assert any(part in line for line in numbered), part
    caplog.clear()
    build_data(read_runs([*words, columns])[0][1])
    before = [record.message for record in caplog.records]
    assert len([line for line in before if not re.match("decoding|store", line)]) <= 10
    assert any("표.csv is read as CP949" in line for line in before)
