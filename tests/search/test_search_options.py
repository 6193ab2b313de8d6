"""What a search takes: ranges in Hydra's form and in files, and one line for what is no search."""

import importlib.util

import pytest
from hydra import initialize_config_dir

from cxr.errors import UserError
from cxr.jobs import run as run_module
from cxr.jobs.output_folder import take_folder
from cxr.options.command_line import read_command
from cxr.options.composing import CONF
from cxr.train import main

optuna = pytest.importorskip("optuna", minversion="5", reason="the extra `optuna` is not installed")

from cxr.search.sampler import distribution, rounded  # noqa: E402


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
