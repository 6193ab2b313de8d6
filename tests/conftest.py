"""Images to test with: drawn ones, made once a session, and the real ones where they are at hand."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.data.phantom import draw_phantom
from cxr.train import main

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder of 160 drawn images, laid out like the reference set."""
    root = tmp_path_factory.mktemp("drawn")
    draw_phantom(root, images=160, seed=3)
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(cache):
    """Options of a cell that trains in a moment; in fp32, so that figures can be compared to many digits anywhere."""
    network = ("data.image_size=32", "model.hidden=16", "model.widths=[4,8,8]")
    return ("trainer.precision=32-true", f"cache_dir={cache}", *network)


@pytest.fixture(scope="session")
def small(tiny, drawn):
    """Options of such a cell on the drawn images."""
    return ("data=folder", f"data.root={drawn}", *tiny)


@pytest.fixture(scope="session")
def sweep(small, tmp_path_factory):
    """A sweep of two cells in a folder with every character that Hydra's grammar refuses."""
    folder = tmp_path_factory.mktemp("out") / "a=b, c[1] 'x' (한글)"
    with pytest.MonkeyPatch.context() as patch:
        words = ["-m", "aug=on,off", "trainer.max_epochs=2", "optim.lr=0.003", *small, f"hydra.sweep.dir={folder}"]
        patch.setattr("sys.argv", ["train", *words])
        main()
    return folder


@pytest.fixture(scope="session")
def folder(sweep):
    """The run folder of the sweep's first cell."""
    return sweep / "cnn_aug-on_seed-0"


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
