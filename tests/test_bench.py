"""The benchmark measures what it says, on few films and for an instant; and what it says of memory is true."""

import json
import subprocess
import sys
import time

import numpy as np
import pytest

from cxr.bench import main
from cxr.benchmarks import processes
from cxr.benchmarks.contenders import Stopwatch


@pytest.fixture
def words(drawn, cache):
    small = ("data.image_size=32", "model.widths=[4,4]", "model.hidden=8")
    return ("--repeats", "1", "--seconds", "0.05", "data=folder", f"data.root={drawn}", f"cache_dir={cache}", *small)


@pytest.mark.long
def test_the_table_and_its_json(run, words, tmp_path):
    code, out, err = run(main, *words, "model=cnn", "aug=on", "--json", f"{tmp_path}/b.json")
    assert code == 0, err
    told = json.loads((tmp_path / "b.json").read_text())
    assert told["runs"].keys() == {"cnn alone", "cnn aug=on cxr", "cnn aug=on student"}
    of = {name.split()[-1]: runs[0]["images_per_s"] for name, runs in told["runs"].items()}
    ratios = told["ratios"]["cnn aug=on"]
    assert ratios["of_network"] == pytest.approx(of["cxr"] / of["alone"])
    assert ratios["of_student"] == pytest.approx(of["cxr"] / of["student"])
    assert told["store"]["ratio"] > 0 and told["sweep"]["first_step_s"] > 0 and len(told["sweep"]["outside_s"]) == 1
    assert told["machine"]["torch"] and f"{ratios['of_student']:.2f}" in out
    alone = told["runs"]["cnn alone"][0]
    assert f"cnn alone: {alone['gflop_per_s']:,.0f} GFLOP/s" in out
    assert "float32" in alone["matrix_product_gflop_per_s"]
    assert "first step" in out and "b.json" in out


@pytest.mark.long
def test_scale_cleans_up(run, words, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("cxr.bench.SCALES", (200, 400))
    code, _, err = run(main, *words, "--scale", "model=cnn", "--json", f"{tmp_path}/b.json")
    assert code == 0, err
    told = json.loads((tmp_path / "b.json").read_text())["scale"]
    assert told.keys() == {"200", "400"} and told["400"][0]["loader_images_per_s"] > 0
    assert [p.name for p in tmp_path.iterdir()] == ["b.json"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=vgg"], "model=vgg: unknown"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--seconds", "nan"], "--seconds above 0"),
        (["seed=0,1"], "one value of every other option"),
        (["data=folder"], "data.root is missing"),
        (["--json", "/"], "--json /: not a file in a folder"),
        (["launcher=parallel"], "launcher=parallel: the benchmark measures"),
        (["--json", "/no/such/b.json"], "--json /no/such/b.json: not a file in a folder"),
    ],
)
def test_wrong_options_get_one_line(run, words, says):
    code, _, err = run(main, *words)
    assert code == 2 and says in err and err.count("\n") == 1


@pytest.mark.long
def test_a_contender_that_fails_is_named(run, words, tmp_path):
    code, _, err = run(main, *words, "model=cnn", "aug=on", "compile=false", "optim._target_=torch.optim.No")
    assert code == 1 and "torch.optim" in err


def test_memory_is_the_process_s_own_and_mapped_films_do_not_count(tmp_path):
    np.zeros(60_000_000, np.uint8).tofile(tmp_path / "mapped")
    code = (
        "import numpy as np, sys, time; a = np.memmap(sys.argv[1], dtype=np.uint8, mode='c').sum()\n"
        "b = np.ones(40_000_000, np.uint8); time.sleep(0.3); del b"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "mapped")])
    peak = [0.0]
    processes.watch_memory(process, peak)
    assert 40 < peak[0] < 90


def test_the_stopwatch_counts_steps_and_not_what_is_between_epochs():
    watch = Stopwatch(warm_up=2, seconds=0.09)
    steps = 0
    done = False
    while not done:
        watch.begin_epoch()
        for _ in range(3):
            time.sleep(0.01)
            steps += 1
            if done := watch.step(films=5):
                break
        watch.end_epoch()
        time.sleep(0.05)
    result = watch.result()
    assert result["steps"] == steps - 2 and watch.films == 5 * result["steps"]
    assert 0.09 <= watch.spent < 0.01 * steps + 0.04, "the pauses between epochs are left out"
