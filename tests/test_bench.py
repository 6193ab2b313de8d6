"""The benchmark measures what it says, on few images and for an instant; and what it says of memory is true."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from cxr.bench import main
from cxr.benchmarks import processes, runtimes
from cxr.benchmarks.stopwatch import Stopwatch
from cxr.benchmarks.trace import read_trace


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


@pytest.mark.long
def test_exported_files_against_torch(run):
    threads = torch.get_num_threads()
    code, out, _ = run(runtimes.main, "--models", "cnn", "--repeats", "1", "--seconds", "0.05")
    torch.set_num_threads(threads)  # other tests may come after this one
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| cnn")]
    assert code == 0 and [row[3:5] for row in rows] == [[t, b] for t in ("1", "2") for b in ("1", "32")]
    for row in rows:
        torch_rate, onnx_rate, small_rate = (float(cell.split()[0]) for cell in row[5:8])
        assert float(row[8]) == pytest.approx(onnx_rate / torch_rate, rel=0.05, abs=0.02)
        assert float(row[9]) == pytest.approx(small_rate / torch_rate, rel=0.05, abs=0.02)
    assert float(rows[0][1]) > 3.5 * float(rows[0][2]) > 0 and "onnxruntime 1." in out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["model=vgg"], "model=vgg: unknown"),
        (["--repeats", "0"], "--repeats must be at least 1"),
        (["--seconds", "nan"], "--seconds above 0"),
        (["seed=0,1"], "one value of every other option"),
        (["data=folder"], "data.root is missing"),
        (["--json", "/"], "--json /: not a file in an existing folder"),
        (["launcher=parallel"], "launcher=parallel: the benchmark measures"),
        (["--json", "/no/such/b.json"], "--json /no/such/b.json: not a file in an existing folder"),
        (["--gpu", "--steps", "loop,no"], "--steps no: there is no such step"),
        (["--gpu", "--images", "/no/such.tar"], "--images /no/such.tar: no such file"),
        (["--gpu", "--out", "/dev/null/here"], "--out /dev/null/here: cannot be created"),
    ],
)
def test_wrong_options_get_one_line(run, words, says):
    code, _, err = run(main, *words)
    assert code == 2 and says in err and err.count("\n") == 1


@pytest.mark.long
def test_a_contender_that_fails_is_named(run, words, tmp_path):
    code, _, err = run(main, *words, "model=cnn", "aug=on", "compile=false", "optim._target_=torch.optim.No")
    assert code == 1 and "torch.optim" in err


def test_memory_is_the_process_s_own_and_mapped_images_do_not_count(tmp_path):
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
            if done := watch.step(images=5):
                break
        watch.end_epoch()
        time.sleep(0.05)
    result = watch.result()
    assert result["steps"] == steps - 2 and watch.images == 5 * result["steps"]
    assert 0.09 <= watch.spent < 0.01 * steps + 0.04, "the pauses between epochs are left out"


@pytest.mark.long
def test_without_a_gpu_every_step_of_its_measurement_is_tried(tmp_path):
    command = [sys.executable, "-m", "cxr.bench", "--gpu", "--out", tmp_path / "out"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "out" / "gpu.json").read_text())
    steps = found["steps"]
    assert (
        list(steps)
        == found["requested"]
        == ["prepare", "loop", "grid", "parallel", "step", "compile", "checks", "trace"]
    )
    assert all(check["passed"] for check in steps["checks"].values()) and len(steps["checks"]) == 4
    assert len(steps["grid"]["one after the other"]["runs"]) == 4
    assert steps["trace"]["cnn, batch 8"]["host_calls"] > 0
    markdown = (tmp_path / "out" / "gpu.md").read_text()
    assert "whose figures mean nothing" in markdown and "| cnn, batch 8 " in markdown and "needs CUDA" in markdown
    assert not list(tmp_path.glob("cxr-gpu-*")), "images, stores and runs are taken away"


def test_a_measurement_that_runs_out_of_time_says_what_it_did_not_reach(run, tmp_path):
    code, _, err = run(main, "--gpu", "--minutes", "0", "--steps", "trace", "--out", tmp_path / "out")
    assert code == 1 and "failed or not reached: prepare, images" in err
    markdown = (tmp_path / "out" / "gpu.md").read_text()
    assert "images: **not reached: the time was up**" in markdown and "Not reached: trace." in markdown


def test_a_command_that_takes_too_long_is_stopped(tmp_path):
    begin = time.monotonic()
    with pytest.raises(processes.Late, match="stopped at its limit of 1 s"):
        processes.run_command(["timeit", "-n1", "-r1", "import time; time.sleep(60)"], tmp_path / "log", 1)
    assert time.monotonic() - begin < 30


def test_a_command_that_fails_is_quoted(tmp_path):
    (tmp_path / "log").write_text("of before\n")
    with pytest.raises(processes.Failed, match="exit code 1: .*no_such_module"):
        processes.run_command(["no_such_module"], tmp_path / "log", 60)


def test_a_trace_is_read_as_shares_of_time_and_calls_that_wait(tmp_path):
    def event(cat, name, begin, microseconds):
        return {"ph": "X", "cat": cat, "name": name, "ts": begin, "dur": microseconds}

    events = [
        event("kernel", "a", 1000, 100), event("kernel", "b", 1050, 100),  # 150 together
        event("gpu_memcpy", "copy", 1200, 50), event("kernel", "a", 1350, 50),
        event("cuda_runtime", "cudaLaunchKernel", 990, 5), event("cuda_runtime", "cudaGraphLaunch", 1340, 5),
        event("cuda_runtime", "cudaStreamSynchronize", 1100, 20), event("cuda_runtime", "cudaMemcpyAsync", 1195, 3),
        event("cuda_runtime", "cudaDeviceSynchronize", 2000, 500),  # the profiler's own, after the last step
        {"ph": "M", "name": "process_name"},
    ]  # fmt: skip
    (tmp_path / "trace.json").write_text(json.dumps({"traceEvents": events}))
    read = read_trace(tmp_path / "trace.json", steps=2)
    assert read["step_ms"] == pytest.approx(0.2)
    shares = {key: read[key] for key in ("kernels", "copies", "idle")}
    assert shares == pytest.approx({"kernels": 0.5, "copies": 0.125, "idle": 0.375})
    assert (read["kernels_per_step"], read["launches_per_step"]) == (1.5, 1)
    assert read["waits"] == {"cudaStreamSynchronize": 1} and read["waiting_ms_per_step"] == pytest.approx(0.01)
    assert read["longest"][0] == ["a", pytest.approx(0.6)]
