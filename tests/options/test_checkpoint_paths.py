"""What `ckpt` names: paths may contain commas, and the first wrong one is named."""

import pytest
from hydra import initialize_config_dir

from cxr.errors import UserError
from cxr.options.checkpoint_paths import holds_network, paths_in
from cxr.options.composing import CONF
from cxr.options.grammar import parse, quote_path
from cxr.options.rules import check_values


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Checkpoints with and without commas in their names, a sweep of one run, and a folder that is neither."""
    monkeypatch.chdir(tmp_path)
    for name in ("a.ckpt", "b,c.ckpt", "d, e/f.ckpt", "sweep/run/status.json", "empty/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    "paths",
    [
        ["a.ckpt"],
        ["b,c.ckpt"],
        ["a.ckpt", "b,c.ckpt", "d, e/f.ckpt"],
        ["d, e/f.ckpt", "d, e/f.ckpt"],
        ["sweep", "sweep/run", "a.ckpt"],
        ["no", "such", "a.ckpt"],
        ["a.ckpt", ""],
        [*["sweep/../a.ckpt"] * 400],  # as one path, longer than any system allows
    ],
)
def test_paths_may_contain_commas(place, paths):
    text = ",".join(paths)
    assert paths_in(text) == paths
    with initialize_config_dir(str(CONF), version_base="1.3"):
        assert parse(quote_path(f"ckpt={text}")).value() == text, "Hydra's grammar leaves it whole"


def test_files_runs_and_sweeps_hold_networks(place):
    assert [path for path in ("a.ckpt", "sweep", "sweep/run", "empty", "no", "") if holds_network(path)] == [
        *("a.ckpt", "sweep", "sweep/run")
    ]
    check_values({"ckpt": "a.ckpt,sweep/run"})


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        *(("no.ckpt", "no.ckpt: nothing is there;"), ("a.ckpt,no,none", "no: nothing is there;")),
        *(("a.ckpt,empty", "empty:"), ("a.ckpt,", ":"), ("", ":")),
    ],
)
def test_the_first_wrong_one_is_named(place, text, wrong):
    with pytest.raises(UserError, match=f"^ckpt={wrong} must be a checkpoint, such as RUN/checkpoints/best.ckpt, or "):
        check_values({"ckpt": text})
