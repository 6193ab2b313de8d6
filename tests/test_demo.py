"""The command cxr.demo as a process: it starts, keeps nothing, and ends as it should."""

import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from cxr import demo
from cxr.files.status import read_status

pytest.importorskip("starlette", reason="starlette is not installed (pip install 'cxr[demo]')")


def start(*words, **options):
    command = [sys.executable, "-m", "cxr.demo", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.long
def test_a_process_that_serves_leaves_nothing_of_a_request_and_ends_with_ctrl_c(folder, drawn, tmp_path):
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    process = start(f"ckpt={folder}", "port=0", "host=0.0.0.0", env=environment)
    try:
        url = process.stdout.readline().split()[1]
        image = sorted((drawn / "test" / "NORMAL").iterdir())[0].read_bytes()
        assert urllib.request.urlopen(f"{url}/answer", image, timeout=60).status == 200
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as half:
            half.sendall(b"POST /answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nhalf")
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 130 and out == ""
    assert err.splitlines()[-1] == "cxr: stopped by SIGINT" and "Traceback" not in err
    assert "host=0.0.0.0: everybody on the network can open this page" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("ckpt=nowhere", "ckpt=nowhere: nothing is there; must be a checkpoint"),
        ("port=70000", "must be a whole number from 0 to 65535"),
        ("host=no.such.host.invalid", "cannot listen there"),
        ("hots=x", "did you mean host?"),
    ],
)
def test_a_wrong_option_is_a_line_before_anything_starts(run, monkeypatch, word, message):
    monkeypatch.setattr(demo, "train_on_drawn_images", lambda: pytest.fail("it trained"))
    code, out, err = run(demo.main, word)
    assert code == 2 and out == "" and message in err and len(err.splitlines()) == 1


def test_a_port_in_use_and_a_missing_extra_are_a_line(run, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as other:
        code, _, err = run(demo.main, f"port={other.getsockname()[1]}")
        assert code == 2 and "choose another port=N" in err
    monkeypatch.setattr(demo, "NEEDED", ("starlette", "no_such_package"))
    assert run(demo.main)[::2] == (2, "cxr: this needs no_such_package: pip install 'cxr[demo]'\n")


@pytest.mark.long
def test_without_a_checkpoint_it_trains_first_and_finds_the_network_again(monkeypatch, tmp_path, cache):
    monkeypatch.chdir(tmp_path)
    words = ("data.images=100", "data.image_size=32", "trainer.max_epochs=1", f"cache_dir={cache}")
    monkeypatch.setattr(demo, "TRAIN", (*demo.TRAIN, *words))
    run = demo.train_on_drawn_images()
    finished = read_status(tmp_path / run)
    assert finished["status"] == "done" and demo.train_on_drawn_images() == run
    assert read_status(tmp_path / run)["started"] == finished["started"]
