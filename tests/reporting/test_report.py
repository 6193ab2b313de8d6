"""The report stands alone, says what the metrics files say, and escapes what users named."""

import json
import re
import shutil

import pytest
import yaml

from cxr import report
from cxr.files.writing import read_json
from cxr.reporting.console import beaten_lines, run_summary
from cxr.reporting.markdown import in_short
from cxr.reporting.model_card import write_model_card
from cxr.reporting.report import write_report
from cxr.reporting.words import LANGUAGES, TEMPLATES, words


def test_a_sweep_ends_with_a_report_that_needs_no_other_file(sweep):
    page = (sweep / "report.html").read_text()
    assert not re.search(r'(src|href)="(?!data:|#)|url\(|<script', page)
    assert len(re.findall(r'src="data:image/png;base64,[A-Za-z0-9+/=]{1000,}"', page)) == 8  # two recipes
    for run in sorted(sweep.glob("*/metrics.json")):
        metrics = json.loads(run.read_text())
        assert run.parent.name in page
        for shown in (metrics["test"]["f1_macro"], metrics["calibration"]["after"]["ece"]):
            assert f"{shown:.3f} [" in page
        assert json.loads((run.parent / "audit.json").read_text())["sha256"] in page
    assert "python -m cxr.train -m aug=on,off trainer.max_epochs=2" in page
    assert re.search(r"data.root=/\S+ ", page), "as it was typed, without Hydra's quotes"


def test_two_networks_are_shown_against_their_cost(run, sweep, tmp_path):
    """The picture is there with two networks only."""
    sweep = shutil.copytree(sweep, tmp_path / "sweep")
    folder = sweep / "cnn_aug-off_seed-0"
    network = json.loads((folder / "metrics.json").read_text())["network"]
    page = (sweep / "report.html").read_text()
    parameters, flops = (in_short(network[key]) for key in ("parameters", "flops"))
    assert f"<td>{folder.name}</td><td>{parameters}</td><td>{flops}</td>" in page
    assert page.count("data:image/png;base64,") == 8
    metrics = json.loads((folder / "metrics.json").read_text())
    larger = metrics | {"network": {"parameters": 10**9, "flops": 10**12}}
    (folder / "metrics.json").write_text(json.dumps(larger))
    assert run(report.main, sweep)[0] == 0
    page = (sweep / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 9
    assert "<td>1.00 G</td><td>1.00 T</td>" in page


def test_what_users_named_is_escaped(run, folder, tmp_path):
    folder = shutil.copytree(folder, tmp_path / "run")
    told = json.loads((folder / "audit.json").read_text())
    evil = "<script>alert(1)</script>.png"
    (folder / "audit.json").write_text(json.dumps(told | {"blank": [evil]}))
    code, out, _ = run(report.main, folder, "report.lang=ko")
    page = (folder / "report.html").read_text()
    assert code == 0 and out.strip() == str(folder / "report.html")
    assert "&lt;script&gt;" in page and "<script" not in page
    assert "혼동 행렬" in page and '<html lang="ko">' in page


def test_a_korean_report_and_card_have_no_english_sentence(sweep, folder, tmp_path):
    """Names, options, commands and paths apart, no three English words follow each other."""
    copy = shutil.copytree(sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("checkpoints"))
    page = write_report(copy, "ko").read_text()
    config = yaml.safe_load((folder / "config.yaml").read_text()) | {"report": {"lang": "ko"}}
    run = copy / folder.name
    write_model_card(run, read_json(run / "metrics.json"), config, read_json(run / "audit.json"))
    for text in (page, (run / "MODEL_CARD.md").read_text()):
        text = re.sub(r"(?s)<style.*?</style>|<pre>.*?</pre>|<code>.*?</code>|<[^>]+>", " ; ", text)
        text = re.sub(r"`[^`]*`|python -m [\w.]+|\S+=\S+|\S+/\S+", ";", text)
        assert "환자" in text and not re.findall(r"\b[A-Za-z]{2,}(?: [a-z]{2,}){2,}", text)


def test_every_word_is_there_in_every_language():
    table = yaml.safe_load((TEMPLATES / "words.yaml").read_text())
    assert all(len(said) == len(LANGUAGES) and all(isinstance(s, str) and s for s in said) for said in table.values())
    for lang in LANGUAGES:
        known = words(lang)
        for template in ("report.html", "MODEL_CARD.md"):
            used = re.findall(r"\bw\.(\w+)", (TEMPLATES / template).read_text())
            assert set(used) <= known.keys()


def test_the_model_card_says_what_the_metrics_say(folder):
    card = (folder / "MODEL_CARD.md").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert f"parameters {in_short(metrics['network']['parameters'])}, FLOPs per image" in card
    assert f"n = {metrics['n_test']}" in card and metrics["note"] in card and "Not a medical device" in card
    for scores in metrics["test"]["per_class"].values():
        assert f"{scores['recall']:.3f} [" in card


@pytest.mark.parametrize(
    ("lang", "kept", "broken"),
    [
        (
            "en",
            "promised sensitivity: at least 90% with 95% confidence (needs 29 validation patients of this class, and "
            "there are 34)",
            "promised sensitivity: NONE; 90% with 95% confidence needs 29 validation patients of this class, and there "
            "are {n}; the threshold is their lowest score",
        ),
        (
            "ko",
            "보장하는 민감도: 신뢰수준 95%에서 90% 이상 (이 클래스의 검증 환자 29명 필요, 34명 있음)",
            "보장하는 민감도: 없음. 신뢰수준 95%에서 90%를 보장하려면 이 클래스의 검증 환자 29명이 "
            "필요하나 {n}명뿐이므로",
        ),
    ],
)
def test_a_promised_sensitivity_and_a_missing_promise_are_in_console_card_and_report(
    folder, tmp_path, lang, kept, broken
):
    run = shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"report": {"lang": lang}}
    metrics, audit = (json.loads((run / name).read_text()) for name in ("metrics.json", "audit.json"))
    n = metrics["screening"]["val_patients"]
    enough = metrics | {"screening": metrics["screening"] | {"val_patients": 34, "promised": True}}
    for changed, text in ((metrics, broken.format(n=n)), (enough, kept)):
        (run / "metrics.json").write_text(json.dumps(changed))
        write_model_card(run, changed, config, audit)
        assert f"- {text}" in (run / "MODEL_CARD.md").read_text()
        assert text.split(": ", 1)[1] in write_report(run, lang).read_text()
        if lang == "en":
            assert f"\n  {text}\n" in run_summary(run, changed)


def test_unknown_patients_are_a_limit_in_card_and_report(folder, tmp_path):
    run = shutil.copytree(folder, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))
    metrics, audit = (json.loads((run / name).read_text()) for name in ("metrics.json", "audit.json"))
    limit = f"The patient of 7 of {audit['images']} images is not known; each of these counts as a patient of its own"
    for unknown in (0, 7):
        audit |= {"images_of_unknown_patients": unknown}
        (run / "audit.json").write_text(json.dumps(audit))
        write_model_card(run, metrics, yaml.safe_load((run / "config.yaml").read_text()), audit)
        assert (limit in (run / "MODEL_CARD.md").read_text()) == (unknown > 0)
        assert (limit in write_report(run, "en").read_text()) == (unknown > 0)


def test_networks_that_are_no_better_than_thumbnails_are_named():
    def run(f1, thumbnails):
        rules = {"majority_class": {"f1_macro": 0.2}, "nearest_neighbour": {"f1_macro": thumbnails}}
        return {"test": {"f1_macro": f1}, "shortcuts": rules}

    assert beaten_lines({"a": run(0.5, 0.4)}) == []
    lines = beaten_lines({"a": run(0.2, 0.4), "b": run(0.5, 0.4), "c": run(0.4, 0.4), "d": run(0.1, 0.1)})
    assert lines == [
        "No better than the rule “nearest neighbour on thumbnails” (macro F1 0.400): a, c.",
        "No better than the rule “always predict the most frequent class” (macro F1 0.200): d.",
    ]


def test_a_damaged_metrics_file_is_one_line(run, sweep, tmp_path):
    moved = shutil.copytree(sweep, tmp_path / "sweep")
    next(moved.glob("*/metrics.json")).write_text("{")
    code, _, err = run(report.main, moved)
    assert code == 2 and "metrics.json: damaged (not JSON)" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "usage"),
        (["/no/such"], "/no/such: there is no such folder"),
        ([".", "report.lang=fr"], "report.lang=fr: must be en or ko"),
    ],
)
def test_wrong_options_get_one_line(run, words, says):
    code, _, err = run(report.main, *words)
    assert code == 2 and says in err and err.count("\n") == 1
