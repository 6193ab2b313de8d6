"""hparams=optuna: a search that is killed goes on, ends with options that can be trained, and opens no test images."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
import yaml

from cxr.errors import Diverged, UserError
from cxr.files.writing import read_json, read_table
from cxr.jobs import run as run_module
from cxr.reporting.report import write_report
from cxr.train import main

optuna = pytest.importorskip("optuna", minversion="5", reason="the extra `optuna` is not installed")

from cxr.search import study  # noqa: E402


def trials_of(folder):
    url = f"sqlite:///{folder / 'search.db'}"
    return optuna.load_study(study_name=folder.name, storage=url).get_trials(deepcopy=False)


@pytest.fixture(scope="module", autouse=True)
def importances_of_five():
    """Five trials are few, but enough to test what is made of many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "FEW", 5)
        yield


@pytest.fixture(scope="module")
def killed(words, tmp_path_factory):
    """The folder of a search that was killed while its second trial ran, its words, and what that trial was told."""
    folder = tmp_path_factory.mktemp("search") / "s"
    words = [*words, "n_trials=5", f"hydra.sweep.dir={folder}"]
    command = [sys.executable, "-m", "cxr.train", *words]
    search = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    ended, line = 0, ""
    while ended < 1 or "split pooled" not in line:
        line = search.stdout.readline()
        assert line, "it ended before it was killed"
        ended += line.startswith("trial ")
    search.kill()
    search.wait()
    return folder, words, trials_of(folder)[1].params


@pytest.fixture(scope="module")
def searched(killed):
    """The same search, continued in this process, and what it printed."""
    folder, words, _ = killed
    assert [t.state.name for t in trials_of(folder)] == ["COMPLETE", "RUNNING"]
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out):
        patch.setattr(sys, "argv", ["train", *words])
        main()
    return folder, words, out.getvalue()


def test_a_killed_search_goes_on_to_its_total(run, killed, searched):
    params, (folder, words, out) = killed[2], searched
    trials = trials_of(folder)
    assert [(t.number, t.state.name) for t in trials] == [(n, "COMPLETE") for n in range(5)]
    assert trials[1].params == params, "taken up again"
    assert "trial 1: macro F1" in out and "trial 0: " not in out
    rows = read_table(folder / "leaderboard.csv")
    assert len(rows) == 5 and {row["status"] for row in rows} == {"done"}
    assert {(float(r["optim.lr"]), r["data.batch_size"]) for r in rows} == {
        (t.params["optim.lr"], str(t.params["data.batch_size"])) for t in trials
    }
    values = {float(r["optim.lr"]): float(r["val_f1_macro"]) for r in rows}
    assert values == {t.params["optim.lr"]: t.value for t in trials}
    first = next(line for line in (folder / "leaderboard.md").read_text().splitlines() if line.startswith("| 0."))
    assert first.startswith(f"| {max(values.values()):.4f}"), "best first"
    out = run(main, *words)[1]
    assert "split pooled" not in out and len(trials_of(folder)) == 5, "the total is reached"


@pytest.mark.long
def test_a_killed_search_is_as_one_that_never_was(run, searched, tmp_path):
    folder, words, _ = searched
    assert run(main, *words, f"hydra.sweep.dir={tmp_path}/s")[0] == 0
    killed, whole = ([(t.params, t.value) for t in trials_of(place)] for place in (folder, tmp_path / "s"))
    assert killed == whole


def test_the_best_options_train_again_to_the_same_score(run, searched, cache):
    folder = searched[0]
    found = read_json(folder / "search.json")
    best = max(found["trials"], key=lambda trial: trial["value"])
    text = (folder / "experiment" / "best.yaml").read_text()
    assert yaml.safe_load(text)["optim"]["lr"] == best["params"]["optim.lr"] and best["run"] in text
    again = ("--config-dir", folder, "experiment=best", f"cache_dir={cache}", f"hydra.run.dir={folder.parent}/best")
    assert run(main, *again)[0] == 0
    assert read_json(folder.parent / "best" / "metrics.json")["val"]["f1_macro"] == best["value"]


def test_the_report_of_a_copied_search_needs_no_optuna(searched, tmp_path, monkeypatch):
    folder = searched[0]
    monkeypatch.setitem(sys.modules, "optuna", None)
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "search.db").unlink()
    found = read_json(copy / "search.json")
    assert abs(sum(found["importances"].values()) - 1) < 1e-6 and len(found["importances"]) == 2
    text = write_report(copy, "en").read_text()
    assert text.count('<img alt="Hyperparameter search"') == 1
    assert text.count('<img alt="Importance of the searched options"') == 1
    assert "Nothing was chosen on test images" in text
    best = max(found["trials"], key=lambda trial: trial["value"])["run"]
    assert not [t["run"] for t in found["trials"] if t["run"] in text and t["run"] != best], (
        "their test images are shut"
    )
    (copy / "search.json").write_text(json.dumps(found | {"importances": {}}))
    assert "Too few trials" in write_report(copy, "en").read_text()


def test_trials_that_fail_or_diverge_end_no_search(run, tmp_path, monkeypatch, words):
    ends = [ZeroDivisionError("a bug of ours"), Diverged("training diverged: the loss is nan"), None, None]

    def break_two(*arguments, train=run_module.train_and_test):
        if error := ends.pop(0):
            raise error
        train(*arguments)

    monkeypatch.setattr(run_module, "train_and_test", break_two)
    code, out, err = run(main, *words, "n_trials=3", f"hydra.sweep.dir={tmp_path}/s")
    assert code == 0 and "ZeroDivisionError: a bug of ours" in err and "Traceback" not in err
    found = read_json(tmp_path / "s" / "search.json")["trials"]
    assert [(t["state"], t["value"]) for t in found[:2]] == [("fail", None), ("complete", 0.0)]
    assert found[2]["value"] > 0 and "trial 0: failed" in out
    assert (
        "1 of 3 diverged (scored as 0). 1 of 3 runs did not finish." in out
        and (tmp_path / "s" / "experiment" / "best.yaml").exists()
    )


def test_a_search_whose_trials_all_fail_says_so(run, tmp_path, monkeypatch, words):
    def break_all(*_):
        raise UserError("no such hardware")

    monkeypatch.setattr(run_module, "train_and_test", break_all)
    code, _, err = run(main, *words, "n_trials=2", f"hydra.sweep.dir={tmp_path}/s")
    assert code == 1 and "Traceback" not in err
    assert "every trial failed or diverged, so there is no best one" in err.splitlines()[-1]


@pytest.mark.long
def test_a_search_whose_best_run_cannot_be_tested_says_so_and_tests_it_later(run, tmp_path, monkeypatch, words):
    words = (*words, "n_trials=1", f"hydra.sweep.dir={tmp_path}/s")

    def break_test(*_):
        raise ZeroDivisionError("a bug of ours")

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "test_run", break_test)
        code, _, err = run(main, *words)
    assert code == 1 and "trial 0 is the best one, but its test failed" in err and "Traceback" not in err
    assert read_table(tmp_path / "s" / "leaderboard.csv")[0]["status"] == "failed"
    assert run(main, *words)[0] == 0
    (row,) = read_table(tmp_path / "s" / "leaderboard.csv")
    assert row["status"] == "done" and row["f1_macro"] and row["val_f1_macro"]


@pytest.mark.parametrize("isolate", ["false", pytest.param("true", marks=pytest.mark.long)])
def test_only_the_best_trial_opens_test_images_and_once(run, tmp_path, monkeypatch, words, isolate):
    sides = []

    def noting(predict):
        def note(model, data, side, *arguments):
            sides.append(side)
            return predict(model, data, side, *arguments)

        return note

    for name in ("predict", "predict_with_features"):
        monkeypatch.setattr(run_module, name, noting(getattr(run_module, name)))
    words = (*words, "n_trials=3", f"isolate={isolate}", f"hydra.sweep.dir={tmp_path}/s")
    assert run(main, *words)[0] == 0
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [row["status"] for row in rows] == ["done"] * 3 and all(row["val_f1_macro"] for row in rows)
    best = max(rows, key=lambda row: float(row["val_f1_macro"]))
    tested = [row["run"] for row in rows if row["f1_macro"]]
    assert tested == [best["run"]]
    for row in rows:
        metrics = read_json(tmp_path / "s" / row["run"] / "metrics.json")
        assert ("test" in metrics) == (row["run"] == best["run"]) and metrics["val"]
        assert (tmp_path / "s" / row["run"] / "predictions.csv").exists() == (row["run"] == best["run"])
    if isolate == "false":
        assert sides == ["val", "val", "val", "val", "test"]
        run(main, *words)
        assert len(sides) == 5, "given again, it opens nothing"
