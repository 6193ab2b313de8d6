"""Trials of a search in a storage: who runs which, and how many there are."""

import pytest
from hydra import initialize_config_dir

from cxr.errors import UserError
from cxr.options.composing import CONF
from cxr.options.search_space import Search
from cxr.reporting import search_figures

optuna = pytest.importorskip("optuna", minversion="5", reason="the extra `optuna` is not installed")

from cxr.search.study import Study  # noqa: E402

SPACE = {"optim.lr": "interval(0.001,0.1)", "data.batch_size": "16,32"}


@pytest.fixture(autouse=True)
def grammar():
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


@pytest.fixture
def open_study(tmp_path):
    """Opens a search in a folder, which may share a database with others."""

    def call(name, shared=False, **options):
        (tmp_path / name).mkdir(exist_ok=True)
        storage = {"storage": f"sqlite:///{tmp_path}/shared.db", "study": "both"} if shared else {}
        return Study(Search(SPACE, [], **{"n_trials": 2, **storage, **options}), tmp_path / name)

    return call


def states(study):
    return [trial.state.name for trial in study.trials()]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_values_depend_on_seed_and_number_alone(open_study, sampler):
    drawn = [
        [t.params for t in open_study(name, sampler=sampler, seed=seed).ask(2)]
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert drawn[0] == drawn[1] != drawn[2] and drawn[0][0] != drawn[0][1]


def test_a_trial_that_was_killed_as_its_values_were_drawn_gets_the_same_values(open_study):
    (expected,) = open_study("a").ask(1)
    killed = open_study("b")
    killed.study.ask()
    again = open_study("b")
    again.take_up_again()
    (trial,) = again.ask(1)
    assert (trial.number, trial.params) == (0, expected.params)


def test_machines_take_up_only_their_own_trials(open_study):
    first, second = open_study("a", shared=True), open_study("b", shared=True)
    (ours,), (theirs,) = first.ask(1), second.ask(1)
    assert ours.params != theirs.params and not first.ask(1)
    again = open_study("a", shared=True)
    again.take_up_again()
    assert states(again) == ["WAITING", "RUNNING"]
    assert [trial.params for trial in again.ask(2)] == [ours.params]


def test_a_machine_that_was_slower_gives_its_trial_back(open_study, monkeypatch):
    first, second = open_study("a", shared=True, n_trials=1), open_study("b", shared=True, n_trials=1)
    assert len(first.ask(1)) == 1
    answers = [[]]  # what the second machine reads before the first one begins its trial
    monkeypatch.setattr(second, "trials", lambda: answers.pop() if answers else Study.trials(second))
    assert second.ask(1) == [] and states(first) == ["RUNNING"], "one too many is no trial of the search"
    assert len(first.study.trials) == 2


def test_a_storage_that_fails_on_the_way_is_an_error_of_one_line(open_study):
    study = open_study("a")
    with (
        pytest.raises(UserError, match="search.db: this database cannot be used any more .*same command"),
        study.reachable(),
    ):
        raise optuna.exceptions.StorageInternalError("the disk is full\nand more")


def test_the_history_shows_pruned_trials_apart_from_the_best_so_far():
    trials = [
        {"number": 0, "state": "complete", "value": 0.5},
        {"number": 1, "state": "pruned", "value": 0.9},
        {"number": 2, "state": "complete", "value": 0.0},
        {"number": 3, "state": "fail", "value": None},
        {"number": 4, "state": "pruned", "value": None},
    ]
    axes = search_figures.history(trials).axes[0]
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["pruned: 1"] == [0.9] and max(lines["best so far"]) == 0.5
    assert {"failed: 1", "diverged: 1"} <= set(lines)
