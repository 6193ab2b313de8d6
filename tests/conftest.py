"""Images to test with: drawn ones, made once a session, and the real ones where they are at hand."""

import os
import sys
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # tests side by side, whose threads would wait for each other's cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from cxr.data.phantom import draw_phantom
from cxr.models import heatmaps
from cxr.train import main

HEATMAPS = "cxr.jobs.heatmap_results.is_installed"
SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session", autouse=True)
def without_heatmaps():
    """Runs in the processes of the tests have no heatmaps, which would take a second each, but for with_heatmaps()."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HEATMAPS, lambda: False)
        yield


def with_heatmaps(patch):
    """Within this patch, runs have heatmaps where captum is installed."""
    patch.setattr(HEATMAPS, heatmaps.is_installed)


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """A folder that all processes of a test session share: what lies there is made by the first that needs it."""
    mine = tmp_path_factory.getbasetemp()
    return mine.parent if "PYTEST_XDIST_WORKER" in os.environ else mine


@pytest.fixture(scope="session")
def drawn(common):
    """A folder of 160 drawn images, laid out like the reference set."""
    root = common / "drawn"
    with FileLock(common / "drawn.lock"):
        if not (root / "manifest.csv").exists():
            draw_phantom(root, images=160, seed=3)
    return root


@pytest.fixture(scope="session")
def cache(common):
    return common / "cache"


@pytest.fixture(scope="session")
def tiny(cache):
    """Options of a run that trains in a moment; in fp32, so that figures can be compared to many digits anywhere."""
    network = ("data.image_size=32", "model.hidden=16", "model.widths=[4,8,8]")
    return ("trainer.precision=32-true", f"cache_dir={cache}", *network)


@pytest.fixture(scope="session")
def small(tiny, drawn):
    """Options of such a run on the drawn images."""
    return ("data=folder", f"data.root={drawn}", *tiny)


@pytest.fixture(scope="session")
def sweep(small, common):
    """A sweep of two runs in a folder with every character that Hydra's grammar refuses."""
    folder = common / "a=b, c[1] 'x' (한글)"
    with FileLock(common / "sweep.lock"), pytest.MonkeyPatch.context() as patch:
        if not (folder / "report.html").exists():
            with_heatmaps(patch)
            words = ["-m", "aug=on,off", "trainer.max_epochs=2", "optim.lr=0.003", *small, f"hydra.sweep.dir={folder}"]
            patch.setattr("sys.argv", ["train", *words])
            main()
    return folder


@pytest.fixture(scope="session")
def folder(sweep):
    """The run folder of the sweep's first run."""
    return sweep / "cnn_aug-on_seed-0"


@pytest.fixture(scope="session")
def bf16_folder(small, common):
    """The run folder of such a run, in bf16, which every CPU can compute in."""
    folder = common / "bf16"
    words = [word for word in small if not word.startswith("trainer.precision=")]
    words += ["trainer.precision=bf16-mixed", "trainer=cpu", "trainer.max_epochs=2", "optim.lr=0.003"]
    with FileLock(common / "bf16.lock"), pytest.MonkeyPatch.context() as patch:
        if not (folder / "MODEL_CARD.md").exists():
            with_heatmaps(patch)
            patch.setattr("sys.argv", ["train", *words, f"hydra.run.dir={folder}"])
            main()
    return folder


@pytest.fixture(scope="session")
def cxr4():
    if not (SHARED / "cxr4").is_dir():
        pytest.skip("the real images (shared/data/cxr4 beside the repository) are not on this machine")
    return SHARED / "cxr4"


@pytest.fixture(scope="session")
def odd():
    if not (SHARED / "odd").is_dir():
        pytest.skip("the odd images (shared/data/odd beside the repository) are not on this machine")
    return SHARED / "odd"


def save_image(path, seed=0, size=(40, 30), mode="L", **options):
    """An image of noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.fixture
def image():
    return save_image


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command as `python -m` would, in this process; returns exit code, standard output and error."""

    def call(main, *words):
        monkeypatch.setattr(sys, "argv", ["cxr", *map(str, words)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def pytest_collection_modifyitems(items):
    """Slurm's tests first: they wait for its jobs, and the others can use the cores meanwhile."""
    items.sort(key=lambda item: "test_slurm" not in item.nodeid)
