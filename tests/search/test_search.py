"""hparams=optuna: a search that is killed goes on, ends with options that can be trained, and opens no test images."""

import importlib.util
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import redirect_stdout

import numpy as np
import pytest
import yaml
from hydra import initialize_config_dir

from cxr.errors import Diverged, UserError
from cxr.files.writing import read_json, read_table
from cxr.jobs import run as run_module
from cxr.jobs.output_folder import take_folder
from cxr.models.classifier import Classifier
from cxr.options.command_line import read_command
from cxr.options.composing import CONF
from cxr.reporting.report import write_report
from cxr.train import main
from cxr.training import signals

optuna = pytest.importorskip("optuna", minversion="5", reason="the extra `optuna` is not installed")

from cxr.search.pruning import make_pruner  # noqa: E402
from cxr.search.sampler import distribution, rounded  # noqa: E402

RANGES = ("optim.lr=tag(log,interval(0.001,0.03))", "data.batch_size=16,32")


@pytest.fixture(scope="session")
def words(small):
    """A search of two options, in this process."""
    fixed = ("isolate=false", "aug=off", "trainer.max_epochs=1", "optim=adam", "optim.weight_decay=0")
    raw = ("model.mean=0", "model.std=1")  # after one epoch, trials then have different scores
    return ("-m", "hparams=optuna", *fixed, *raw, *small, *RANGES)


def trials_of(folder):
    url = f"sqlite:///{folder / 'search.db'}"
    return optuna.load_study(study_name=folder.name, storage=url).get_trials(deepcopy=False)


@pytest.fixture(scope="module")
def killed(words, tmp_path_factory):
    """The folder of a search that was killed while its second trial ran, its words, and what that trial was told."""
    folder = tmp_path_factory.mktemp("search") / "s"
    words = [*words, "n_trials=8", f"hydra.sweep.dir={folder}"]
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
    assert [(t.number, t.state.name) for t in trials] == [(n, "COMPLETE") for n in range(8)]
    assert trials[1].params == params, "taken up again"
    assert "trial 1: macro F1" in out and "trial 0: " not in out
    rows = read_table(folder / "leaderboard.csv")
    assert len(rows) == 8 and {row["status"] for row in rows} == {"done"}
    assert {(float(r["optim.lr"]), r["data.batch_size"]) for r in rows} == {
        (t.params["optim.lr"], str(t.params["data.batch_size"])) for t in trials
    }
    values = {float(r["optim.lr"]): float(r["val_f1_macro"]) for r in rows}
    assert values == {t.params["optim.lr"]: t.value for t in trials}
    first = next(line for line in (folder / "leaderboard.md").read_text().splitlines() if line.startswith("| 0."))
    assert first.startswith(f"| {max(values.values()):.4f}"), "best first"
    out = run(main, *words)[1]
    assert "split pooled" not in out and len(trials_of(folder)) == 8, "the total is reached"


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


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.long)])
def test_a_bad_trial_is_pruned(run, tmp_path, monkeypatch, words, pruner):
    """Trials before the last one are good; the last one never learns."""
    prune = {"median": optuna.pruners.MedianPruner, "hyperband": optuna.pruners.HyperbandPruner}[pruner].prune
    asked = []

    def last_one(self, study, trial):
        asked.append((trial.number, trial.last_step, prune(self, study, trial)))
        return trial.number == 1 and trial.last_step == 1

    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", last_one)
    monkeypatch.setattr(optuna.pruners.HyperbandPruner, "prune", last_one)
    words = (*words, "trainer.max_epochs=4", f"pruner={pruner}", "n_trials=2", f"hydra.sweep.dir={tmp_path}/s")
    code, out, _ = run(main, *words)
    assert code == 0 and "trial 1: macro F1" in out and ", pruned; best:" in out
    assert [(number, step) for number, step, _ in asked] == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]
    complete, pruned = trials_of(tmp_path / "s")
    assert (complete.state.name, pruned.state.name) == ("COMPLETE", "PRUNED") and len(pruned.intermediate_values) == 2
    rows = read_table(tmp_path / "s" / "leaderboard.csv")
    assert [row["status"] for row in rows] == ["done", "pruned"] and [row["epochs"] for row in rows] == ["4", "2"]
    assert "1 pruned" in (tmp_path / "s" / "leaderboard.md").read_text()
    assert rows[0]["f1_macro"] and not rows[1]["f1_macro"], "a pruned one is not tested"
    assert read_json(tmp_path / "s" / "search.json")["trials"][1]["state"] == "pruned"
    assert run(main, *words)[0] == 0 and len(asked) == 6, "given again, it trains nothing"


@pytest.mark.long
def test_a_pruned_trial_that_is_killed_before_its_end_trains_no_further(run, tmp_path, monkeypatch, words):
    words = (*words, "trainer.max_epochs=4", "n_trials=1", f"hydra.sweep.dir={tmp_path}/s")

    def stop(*_, **__):
        os.kill(os.getpid(), signal.SIGTERM)
        signals.stop_if_asked()

    def decide(self, study, trial):
        return np.float64(trial.last_step) == 1  # a bool of NumPy's, as Optuna returns

    monkeypatch.setattr(optuna.pruners.MedianPruner, "prune", decide)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "validate_trial", stop)
        assert run(main, *words)[0] == 143
    assert [t.state.name for t in trials_of(tmp_path / "s")] == ["RUNNING"]
    code, out, err = run(main, *words)
    assert code == 1 and "so there is no best one" in err, out
    assert [t.state.name for t in trials_of(tmp_path / "s")] == ["PRUNED"]
    (row,) = read_table(tmp_path / "s" / "leaderboard.csv")
    assert (row["status"], row["epochs"]) == ("pruned", "2")


def test_the_median_ends_a_trial_below_it_after_five_and_after_a_quarter_of_the_epochs():
    pruner, study = make_pruner("median", 8), optuna.create_study(direction="maximize")
    for number in range(6):
        trial = study.ask()
        decisions = []
        for epoch in range(8):
            trial.report(0.1 if number == 5 else 0.5, epoch)
            frozen = study.get_trials()[-1]
            decisions.append(pruner.prune(study, frozen))
        study.tell(trial, 0.5)
    assert decisions == [False, False, *[True] * 6]
    assert not make_pruner("none", 8).prune(study, study.trials[5])


@pytest.mark.long
def test_pruning_that_would_be_of_no_use_is_off_and_the_search_says_so(run, tmp_path, monkeypatch, words):
    words = (*words, "n_trials=1", f"hydra.sweep.dir={tmp_path}/s")
    out = run(main, *words)[1]
    assert "no trial is pruned: trainer.max_epochs=1, and pruner=median needs 4 or more" in out
    (trial,) = trials_of(tmp_path / "s")
    assert list(trial.intermediate_values) == [0], "reported all the same, for optuna-dashboard"
    assert trial.intermediate_values[0] == pytest.approx(trial.value, abs=1e-6)
    assert "no trial is pruned" not in run(main, *words, "pruner=none")[1]


@pytest.mark.long
def test_a_signal_fails_no_trial_and_the_same_command_goes_on(run, tmp_path, monkeypatch, words):
    words = (*words, "n_trials=1", f"hydra.sweep.dir={tmp_path}/s")

    def send(self, batch, batch_idx, step=Classifier.training_step):
        os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", send)
        code, _, err = run(main, *words)
    assert code == 143 and err.endswith("the same command resumes it\n")
    assert [t.state.name for t in trials_of(tmp_path / "s")] == ["RUNNING"]
    assert run(main, *words)[0] == 0
    assert [t.state.name for t in trials_of(tmp_path / "s")] == ["COMPLETE"]


@pytest.mark.long
def test_machines_that_share_a_storage_stop_at_the_total_together(run, tmp_path, monkeypatch, words):
    """Another machine begins two of three trials while our first one runs, and does not end the second."""
    url = f"sqlite:///{tmp_path}/shared.db"

    def others(*arguments, train=run_module.train_and_test):
        study = optuna.load_study(study_name="both", storage=url)
        if len(study.trials) < 3:
            for value in (0.5, None):
                trial = study.ask()
                trial.set_user_attr("cxr:by", "another machine")
                trial.suggest_float("optim.lr", 0.001, 0.03, log=True)
                trial.suggest_categorical("data.batch_size", ["16", "32"])
                if value:
                    study.tell(trial, value)
        train(*arguments)

    monkeypatch.setattr(run_module, "train_and_test", others)
    words = (*words, "n_trials=3", f"storage={url}", "study=both", f"hydra.sweep.dir={tmp_path}/s")
    code, out, _ = run(main, *words)
    assert code == 0 and "not tested yet: trial 2 is running on another machine" in out
    assert not read_table(tmp_path / "s" / "leaderboard.csv")[0]["f1_macro"]
    found = read_json(tmp_path / "s" / "search.json")["trials"]
    assert [t["state"] for t in found] == ["complete", "complete", "running"]
    assert [bool(t["run"]) for t in found] == [True, False, False]
    optuna.load_study(study_name="both", storage=url).tell(2, state=optuna.trial.TrialState.FAIL)
    out = run(main, *words)[1]
    assert "not tested yet: trial 1, the best one, ran on another machine" in out


def test_floats_get_few_digits_within_their_range():
    uniform = optuna.distributions.FloatDistribution(0.12345, 1.0)
    assert [rounded(v, uniform) for v in (0.123456789, 0.5678, 1.0)] == [0.12345, 0.568, 1.0]
    for value in ("[8,16]", 0.00012345, True):
        assert rounded(value, optuna.distributions.CategoricalDistribution([value])) == value
    steps = optuna.distributions.FloatDistribution(0.0, 0.5, step=0.1)
    assert rounded(0.1 * 3, steps) == 0.3


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("interval(0.1,0.5)", "FloatDistribution(high=0.5, log=False, low=0.1, step=None)"),
        ("int(interval(1,64))", "IntDistribution(high=64, log=False, low=1, step=1)"),
        ("range(1,6,2)", "IntDistribution(high=5, log=False, low=1, step=2)"),
        ("[8,16],[16,32]", "CategoricalDistribution(choices=('[8,16]', '[16,32]'))"),
    ],
)
def test_ranges_in_the_form_of_optuna(text, form):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert repr(distribution("x", text)) == form


def test_own_ranges_in_a_config_dir_and_what_the_choices_have(tmp_path):
    own = tmp_path / "conf" / "hparams" / "mine.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("# @package _global_\ndefaults: [optuna, _self_]\nranges: {optim.lr: 'range(1,4)'}\n")
    words = ["-m", "--config-dir", f"{tmp_path}/conf", "hparams=mine", f"hydra.sweep.dir={tmp_path}/a"]
    a = read_command(words, "config")
    with take_folder(a):
        assert a.search.space["optim.lr"] == "range(1,4)" and "aug.crop" in a.search.space
    b = read_command(["-m", "hparams=optuna", "model=resnet18", "aug=off", f"hydra.sweep.dir={tmp_path}/b"], "config")
    with take_folder(b):
        assert sorted(b.search.space) == ["data.batch_size", "optim.lr", "optim.weight_decay"]


@pytest.mark.parametrize("key", ["hydra.job.name", "+hydra.job.env_set.X", "model._target_"])
def test_ranges_of_a_file_vary_no_code_and_nothing_of_hydra(run, tmp_path, monkeypatch, key):
    monkeypatch.chdir(tmp_path)
    theirs = tmp_path / "conf" / "hparams" / "theirs.yaml"
    theirs.parent.mkdir(parents=True)
    theirs.write_text(f"# @package _global_\ndefaults: [optuna, _self_]\nranges: {{{key}: 'a,../x'}}\n")
    code, _, err = run(main, "-m", "--config-dir", "conf", "hparams=theirs")
    assert code == 2 and f"ranges: a file cannot vary {key}" in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("-m hparams=optuna optim.lr=interval(0.1,0.01)", "write the lower end of a range first"),
        ("-m hparams=optuna model=cnn,resnet18", "search each network separately"),
        ("hparams=optuna", "needs -m: python -m cxr.train -m hparams=optuna"),
        ("-m optim.lr=interval(0.1,1.0)", "a range needs a search: add hparams=optuna"),
        ("-m hydra.sweeper._target_=hydra_plugins.cxr_search.SearchSweeper", "of Hydra's own options"),
        ("-m hparams=optuna data.val_fraction=0", "a search chooses by validation images"),
        ("-m hparams=optuna seed=1,2", "a search uses one seed"),
        ("-m hparams=optuna n_trials=0", "n_trials=0: must be a whole number from 1"),
        ("-m hparams=optuna optim.lr=interval(-1.0,1.0)", "optim.lr=-1.0: must be a number above 0"),
        ("-m hparams=optuna data.batch_size=16,0", "data.batch_size=0: must be a whole number from 1"),
        ("-m hparams=optuna storage=redis://host/0", "must be null or the address of a database"),
        (
            "-m hparams=optuna storage=sqlite:////nowhere/x.db",
            "storage=sqlite:////nowhere/x.db: this database cannot",
        ),
        ("-m hparams=optuna hydra.sweeper.custom_search_space=os.system", "of Hydra's own options"),
        ("-m hparams=optuna +hydra.sweeper.sampler._target_=os.system", "sampler"),
        ("-m hparams=optuna hydra.sweeper._target_=os.system", "of Hydra's own options"),
        ("-m hparams=optuna trial=3", "a search numbers its trials itself"),
        ("-m hparams=optuna ranges.optim.lr=1,2", "give the option itself a range"),
        ("-m hparams=optuna sampler=grid", "sampler=grid: must be tpe or random"),
        ("-m hparams=optuna pruner=best", "pruner=best: must be none, median or hyperband"),
        ("n_trials=3", "n_trials=3: only with hparams=optuna"),
    ],
)
def test_what_is_no_search_gets_one_line(run, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(main, *words.split())
    assert code in (1, 2) and says in err and err.count("\n") == 1


def test_a_search_that_goes_on_with_other_ranges_is_refused(run, tmp_path, monkeypatch, words):
    def break_all(*_):
        raise UserError("no such hardware")

    monkeypatch.setattr(run_module, "train_and_test", break_all)
    words = (*words, "n_trials=1", f"hydra.sweep.dir={tmp_path}/s")
    run(main, *words)
    code, _, err = run(main, *words, "optim.lr=interval(0.1,1.0)")
    assert code == 1 and "optim.lr: this search began with tag(log,interval(0.001,0.03)), now interval(0.1,1.0)" in err


def test_without_the_extra_the_line_says_what_to_install(run, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, _, err = run(main, "-m", "hparams=optuna")
    assert code == 2 and "hparams=optuna needs optuna>=5: pip install 'optuna>=5'" in err
