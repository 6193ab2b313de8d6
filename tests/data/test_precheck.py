"""Images that `data.on_bad` refuses end the command before any run begins."""

import pytest

from cxr.files.writing import read_table
from cxr.train import main


@pytest.fixture
def root(image, tmp_path):
    """40 usable images of two classes, whose file names give patients, and a file that is no image."""
    for number in range(40):
        image(tmp_path / "set" / ("NORMAL", "TB")[number % 2] / f"person{number}_1.png", number, size=(120, 120))
    (tmp_path / "set" / "NORMAL" / "text.png").write_text("no image")
    return tmp_path / "set"


@pytest.mark.parametrize("words", [("seed=0",), ("-m", "seed=0,1")], ids=["run", "sweep"])
@pytest.mark.parametrize(
    ("on_bad", "reason"),
    [("fail", "1 file in {root} cannot be used"), ("strict", "{root} is doubtful: rejected: 1 (NORMAL/text")],
)
def test_refused_images_start_no_run(run, root, tiny, tmp_path, words, on_bad, reason):
    out = tmp_path / "out"
    options = ("data=folder", f"data.root={root}", *tiny, f"cache_dir={tmp_path}/cache", f"data.on_bad={on_bad}")
    code, _, error = run(main, *words, *options, f"hydra.run.dir={out}", f"hydra.sweep.dir={out}")
    last = error.splitlines()[-1]
    assert code == 2 and last.startswith(f"cxr: data.on_bad={on_bad}: {reason.format(root=root)}")
    assert "Traceback" not in error and not out.exists()


def test_a_sweep_that_refuses_bad_images_only_in_some_runs_starts_none(run, root, tiny, tmp_path):
    words = ("-m", "data.on_bad=skip,fail", "data=folder", f"data.root={root}", *tiny)
    code, _, error = run(main, *words, f"hydra.sweep.dir={tmp_path}/out")
    assert code == 2 and "data.on_bad=fail" in error and not (tmp_path / "out").exists()


@pytest.mark.long
def test_images_that_strict_accepts_are_trained_on(run, small, tmp_path):
    words = ("data.on_bad=strict", "data.copies=exact", "data.patient_pattern=(.+)", "trainer.max_epochs=1")
    code, _, error = run(main, *small, *words, f"hydra.run.dir={tmp_path}/out")
    assert code == 0, error
    assert len(read_table(tmp_path / "out" / "split.csv")) == 160
