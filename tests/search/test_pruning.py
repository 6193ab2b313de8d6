"""Trials that are ended early, and who stops whom: signals, other machines."""

import os
import signal

import numpy as np
import pytest

from cxr.files.writing import read_json, read_table
from cxr.jobs import run as run_module
from cxr.models.classifier import Classifier
from cxr.train import main
from cxr.training import signals

optuna = pytest.importorskip("optuna", minversion="5", reason="the extra `optuna` is not installed")

from cxr.search.pruning import make_pruner  # noqa: E402


def trials_of(folder):
    url = f"sqlite:///{folder / 'search.db'}"
    return optuna.load_study(study_name=folder.name, storage=url).get_trials(deepcopy=False)


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
