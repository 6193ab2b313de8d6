"""python -m cxr.demo: a page in the browser that classifies one image at a time."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import UserError
from cxr.files.run_folder import AUDIT
from cxr.files.writing import read_json
from cxr.jobs.exit_codes import answering
from cxr.options.command_line import read_options
from cxr.training import signals

if TYPE_CHECKING:
    from cxr.serving.loaded import Loaded

NEEDED = ("starlette", "uvicorn")  # the extra `demo`
RUN = "runs/demo"
# The quick network: what the README's table shows for the CNN, in about a minute.
TRAIN = ("cxr.train", "name=demo", "data=phantom", "model=cnn", "aug=on")


def main() -> None:
    """Exit codes: 2 wrong options, 128 + N stopped by the signal of that number: the page ends with Ctrl-C."""
    with answering():
        demo(read_options(sys.argv[1:], "demo"))


def demo(options: dict[str, Any]) -> None:
    """Serve the page, after training a network if none is named."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UserError(f"this needs {' and '.join(missing)}: pip install 'cxr[demo]'")
    from cxr.serving.server import listen_on, server_of, url_of

    # Before the training: that a port is taken should not be known after a minute.
    with listen_on(options["host"], options["port"]) as listener:
        ckpt = options["ckpt"] or train_on_drawn_images()
        from cxr.serving.choices import choices_of  # torch takes seconds
        from cxr.serving.guards import EVERYBODY, LOCAL
        from cxr.serving.page import Page

        page = Page(choices_of(ckpt), options)
        for remark in page.load(0).networks.remarks:
            print(f"cxr: {remark}", file=sys.stderr)
        say_what_to_drop(page.load(0))
        if options["host"] not in LOCAL:
            who = "everybody on the network" if options["host"] in EVERYBODY else "others"
            print(
                f"cxr: host={options['host']}: {who} can open this page, and what they upload travels unencrypted",
                file=sys.stderr,
            )
        print(f"open {url_of(listener)} in a browser; Ctrl-C ends it", flush=True)
        server = server_of(page.app())
        with signals.patient(), signals.passed_on(lambda number: setattr(server, "should_exit", True)):
            server.run(sockets=[listener])
    signals.stop_if_asked()


def train_on_drawn_images() -> str:
    """Train the quick network, or find it from before; returns its run folder."""
    if not Path(RUN).exists():
        print("cxr: no ckpt: a network is trained on drawn images first, for about a minute", file=sys.stderr)
    with signals.patient():
        training = subprocess.Popen([sys.executable, "-m", *TRAIN])
        with signals.passed_on(training.send_signal):
            code = training.wait()
    signals.stop_if_asked()
    if code:
        print(f"cxr: {RUN} is where the network for drawn images goes: move it away, or give ckpt=RUN", file=sys.stderr)
        raise SystemExit(code)
    return RUN


def say_what_to_drop(loaded: "Loaded") -> None:
    """Print where the drawn images are that a network was trained on: who has no others can try these."""
    audit = read_json(loaded.networks.checkpoints[0].resolve().parent.parent / AUDIT)
    if loaded.model.note and (folder := audit.get("root")):
        print(f"cxr: images to try are in {folder}", file=sys.stderr)


if __name__ == "__main__":
    main()
