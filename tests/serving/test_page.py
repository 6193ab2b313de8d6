"""The page answers as cxr.predict does, says what a radiologist must know, and speaks two languages."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from bad_images import BAD_IMAGES, USED

from cxr import predict
from cxr.evaluation.screening import reweighted
from cxr.files.writing import read_json, read_table, write_json
from cxr.reporting.words import LANGUAGES, words

pytest.importorskip("starlette", reason="starlette is not installed (pip install 'cxr[demo]')")

from cxr.serving.answers import TEMPLATES
from cxr.serving.choices import Choice, choices_of
from cxr.serving.loaded import load_choice
from cxr.serving.prevalence import STEPS

# The content of files, without those that are none and those whose name is odd.
UPLOADS = [
    case
    for case, odd in BAD_IMAGES.items()
    if odd.name.startswith("odd") and not any(word in case for word in ("link", "pipe", "too many bytes"))
]


def test_the_page_answers_as_predict_does(url, fetch, run, sweep, drawn, tmp_path):
    images = sorted((drawn / "test").rglob("*.*"))[::9]
    for path in images:
        shutil.copy(path, tmp_path)
    first = choices_of(str(sweep))[0].paths[0]
    assert run(predict.main, f"ckpt={first}", f"source={tmp_path}", f"out={tmp_path}/p.csv")[0] == 0
    for row in read_table(tmp_path / "p.csv"):
        status, _, answer = fetch(f"{url}/answer", Path(row["file"]).read_bytes())
        assert status == 200 and answer["predicted"] == row["prediction"]
        shares = {f"prob_{of['name']}": of["share"] for of in answer["classes"]}
        assert shares == pytest.approx({key: float(row[key]) for key in shares}, abs=1e-6)
        assert bool(answer["refused"]) == (float(row["unfamiliar"]) > 1)
        assert answer["image"].startswith("data:image/png;base64,")


def test_an_image_unlike_the_training_images_is_refused(url, fetch, image, tmp_path):
    noise = image(tmp_path / "noise.png", size=(64, 64)).read_bytes()
    for lang, text in (("en", "differs more from the training images"), ("ko", "학습 영상과 더 다릅니다")):
        assert text in fetch(f"{url}/answer?lang={lang}", noise)[2]["refused"]


def test_a_dicom_file_is_read_and_its_patient_stays_in_it(url, fetch, tmp_path):
    pytest.importorskip("pydicom", reason="pydicom is not installed (pip install 'cxr[dicom]')")
    import drawn_dicom

    path = drawn_dicom.save_dicom(tmp_path / "a.dcm", drawn_dicom.dicom())
    status, _, answer = fetch(f"{url}/answer", path.read_bytes())
    assert status == 200 and not any(word in str(answer) for word in ("Doe", "4711", "Elsewhere"))
    path = drawn_dicom.save_dicom(tmp_path / "b.dcm", drawn_dicom.dicom(BodyPartExamined="HAND"))
    status, _, answer = fetch(f"{url}/answer", path.read_bytes())
    assert status == 422 and "HAND" in answer["error"]


def test_a_negative_is_remarked(url, fetch, drawn, tmp_path):
    from PIL import Image, ImageOps

    ImageOps.invert(Image.open(sorted((drawn / "test" / "NORMAL").iterdir())[0]).convert("L")).save(tmp_path / "n.png")
    assert "negative" in fetch(f"{url}/answer", (tmp_path / "n.png").read_bytes())[2]["negative"]


@pytest.mark.parametrize("case", UPLOADS)
def test_a_bad_image_is_a_line_and_not_a_500(url, fetch, tmp_path, case):
    odd = BAD_IMAGES[case]
    path = tmp_path / "odd"
    odd.write(path)
    status, _, answer = fetch(f"{url}/answer", path.read_bytes())
    if odd.expected == USED:
        assert status == 200
    else:
        assert status == 422 and odd.expected in answer["error"] and "\n" not in answer["error"]
        korean = fetch(f"{url}/answer?lang=ko", path.read_bytes())[2]["error"]
        assert re.fullmatch(r"이 파일은 사용할 수 없습니다: .*[가-힣].* \(.+\)\.", korean) and odd.expected in korean


def test_a_sweep_offers_its_runs_the_best_by_validation_first(sweep, url, fetch):
    choices = choices_of(str(sweep))
    best = [read_json(choice.paths[0] / "metrics.json")["val"]["f1_macro"] for choice in choices]
    assert {choice.name for choice in choices} == {"cnn_aug-on_seed-0", "cnn_aug-off_seed-0"}
    assert best == sorted(best, reverse=True)
    page = fetch(url)[2]
    assert all(choice.name in page and f"{choice.f1_macro:.3f}" in page for choice in choices)
    assert fetch(f"{url}/network?network=1")[0] == 200 and fetch(f"{url}/network?network=2")[0] == 404
    assert {fetch(f"{url}/network?network={odd}")[0] for odd in ("-1", "x", "9" * 5000, "%00")} == {404}


def test_runs_of_one_recipe_can_answer_together(sweep, tmp_path, serve, fetch, drawn):
    folder = tmp_path / "one recipe"
    for number, run in enumerate(path.parent for path in sorted(sweep.glob("*/status.json"))):
        shutil.copytree(run, folder / f"seed-{number}")
        status = read_json(run / "status.json")
        write_json(folder / f"seed-{number}" / "status.json", status | {"choices": {"model": "cnn", "seed": number}})
    together, *alone = choices_of(str(folder))
    assert len(together.paths) == len(alone) == 2 and together.name == "model=cnn"
    image = sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()
    with serve(folder) as address:
        answers = [fetch(f"{address}/answer?network={number}", image)[2] for number in range(3)]
        assert "threshold of networks together was not tested" in str(answers[0]["prevalence"])
        shares = np.array([[of["share"] for of in answer["classes"]] for answer in answers])
        assert "2 networks together: model=cnn" in fetch(address)[2]
    assert (shares[0] != shares[1]).any() and not (shares[1] == shares[2]).all()
    assert choices_of(f"{folder}/seed-1,{folder}/seed-0")[0].paths == [folder / "seed-1", folder / "seed-0"]


def test_two_runs_of_one_name_keep_both_caveats_and_no_prior_where_theirs_differ(folder, tmp_path):
    """And a checkpoint that is not the best one is named, with nothing known of what is unfamiliar to it."""
    runs = [shutil.copytree(folder, tmp_path / name / "run") for name in ("a", "b")]
    loaded = load_choice(Choice(runs, ""), "cpu")
    assert len(loaded.metrics) == 2 and loaded.priors.keys() == {*loaded.model.classes}
    config = runs[1] / "config.yaml"
    config.write_text(config.read_text().replace("weights: none", "weights: balanced"))
    assert "balanced" in config.read_text() and load_choice(Choice(runs, ""), "cpu").priors == {}
    last = runs[0] / "checkpoints" / "last.ckpt"
    assert [of.name for of in choices_of(f"{runs[0]},{last}")[1:]] == ["run", "run, last.ckpt"]
    assert load_choice(Choice([last], ""), "cpu").model.familiar == []


def test_another_prevalence_changes_the_odds_by_bayes():
    assert reweighted(0.7, 0.2, 0.2) == pytest.approx(0.7)
    # 1,000 persons, half of whom have it; 0.9 of the sick and 0.3 of the others look so. With 1 sick in 100:
    looks = (0.9 * 0.5) / (0.9 * 0.5 + 0.3 * 0.5)
    assert reweighted(looks, 0.5, 0.01) == pytest.approx(0.9 * 0.01 / (0.9 * 0.01 + 0.3 * 0.99))
    assert reweighted(1.0, 0.2, 0.01) == 1 and reweighted(0.0, 0.2, 0.01) == 0


def test_the_slider_has_ready_sentences_and_none_where_classes_share_no_hospital(folder, tmp_path, serve, fetch, drawn):
    copy = shutil.copytree(folder, tmp_path / "run")
    metrics = read_json(copy / "metrics.json")
    screened, image = metrics["screening"], sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()
    with serve(copy) as address:
        prevalence = fetch(f"{address}/answer", image)[2]["prevalence"]
        assert len(prevalence["steps"]) == len(STEPS) and screened["class"] in prevalence["title"]
        assert f"threshold of {screened['threshold']:.3g}" in prevalence["steps"][0]["lines"][1]
    metrics["hospitals"] |= {"known": True, "apart": [["NORMAL", screened["class"]]], "pairs": 6}
    write_json(copy / "metrics.json", metrics)
    with serve(copy) as address:
        prevalence = fetch(f"{address}/answer", image)[2]["prevalence"]
        assert prevalence["steps"] == [] and "seem to be from different hospitals" in prevalence["withheld"]
        notes = fetch(f"{address}/network")[2]["notes"]
        assert any("cannot tell the disease from the hospital" in note for note in notes), notes


def test_a_checkpoint_without_its_run_folder_still_answers(folder, tmp_path, serve, fetch, drawn):
    shutil.copy(folder / "checkpoints" / "best.ckpt", tmp_path / "b.ckpt")
    image = sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()
    with serve(tmp_path / "b.ckpt") as address:
        status, _, answer = fetch(f"{address}/answer", image)
        assert status == 200 and answer["prevalence"]["withheld"] and not answer["refused"]
        notes = " ".join(fetch(f"{address}/network")[2]["notes"])
        assert fetch(f"{address}/network")[2]["calibration"].startswith("Calibrated")
        assert "answers for any image, even a photograph" in notes and "was tested is not known" in notes
        (tmp_path / "b.ckpt").unlink()
        assert fetch(f"{address}/answer", image)[0] == 200, "it is kept in memory"


def test_a_training_image_is_its_own_nearest_and_only_this_machine_may_ask(folder, serve, fetch, drawn):
    trained = [row for row in read_table(folder / "split.csv") if row["split"] == "train"][::7]
    with serve(folder) as address:
        assert fetch(f"{address}/network")[2]["nearest"] is True
        for row in trained:
            cases = fetch(f"{address}/nearest", (drawn / row["file"]).read_bytes())[2]
            assert len(cases) == 4 and (row["file"], f"{row['label']}; this very image") in [
                (case["file"], case["label"]) for case in cases
            ]
        assert fetch(f"{address}/nearest", b"no image")[0] == 422
    with serve(folder, host="0.0.0.0") as address:
        assert fetch(f"{address}/network")[2]["nearest"] is False
        assert fetch(f"{address}/nearest", (drawn / trained[0]["file"]).read_bytes())[0] == 404


def test_maps_that_failed_their_tests_are_marked(folder, tmp_path, serve, fetch):
    copy = shutil.copytree(folder, tmp_path / "run")
    metrics = read_json(copy / "metrics.json")
    if not metrics["heatmaps"]:
        pytest.skip("captum is not installed, so the run has no heatmaps")
    for passed in (True, False):
        for test in ("deletion", "sanity"):
            metrics["heatmaps"][test]["passed"] = passed
        write_json(copy / "metrics.json", metrics)
        with serve(copy) as address:
            about = fetch(f"{address}/network")[2]["heatmaps"]
        assert (about["warning"] == "") == passed and len(about["lines"]) == 3


def test_the_page_loads_nothing_from_elsewhere(url, fetch):
    for lang in LANGUAGES:
        _, headers, page = fetch(f"{url}/?lang={lang}")
        assert not re.search(r"https?://|//\w|@import|url\(", page) and f'<html lang="{lang}">' in page
        nonce = re.search(r"script-src 'nonce-([\w-]+)'", headers["content-security-policy"])[1]
        assert page.count(f'nonce="{nonce}"') == 2 and "unsafe" not in headers["content-security-policy"]
        assert nonce not in fetch(url)[2], "each answer has its own"


def test_the_language_is_the_browser_s_unless_one_is_asked_for(url, fetch):
    assert "의료기기가 아닙니다" in fetch(url, Accept_Language="fr;q=1, ko-KR;q=0.9, en")[2]
    assert "Not a medical device" in fetch(f"{url}/?lang=en", Accept_Language="ko")[2]
    assert "Not a medical device" in fetch(f"{url}/?lang=%3Cscript%3E")[2]


def test_every_word_is_there_in_every_language():
    table = yaml.safe_load((TEMPLATES / "words.yaml").read_text(encoding="utf-8"))
    used = set(re.findall(r"\bw\.(\w+)", (TEMPLATES / "page.html").read_text(encoding="utf-8")))
    assert used <= words("en", TEMPLATES).keys()
    for key, texts in table.items():
        assert len(texts) == len(LANGUAGES) and all(isinstance(text, str) and text for text in texts)
        fields = [sorted(re.findall(r"\{(\w+)", text)) for text in texts]
        assert fields[0] == fields[1], key
    code = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.parent.glob("*.py"))
    reasons = [key for key in table if key.startswith("why_")]
    assert [key for key in table if not re.search(rf"""["']{key}["']""", code) and key not in used] == reasons
    decoding = "".join(path.read_text(encoding="utf-8") for path in TEMPLATES.parents[1].joinpath("data").glob("*.py"))
    assert all(table[key][0] in decoding for key in reasons)
