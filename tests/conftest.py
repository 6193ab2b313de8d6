"""Films to test with: drawn ones, made once a session, and the real ones where they are at hand."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxr.data.phantom import draw_phantom

SHARED = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory):
    """A folder of 160 drawn films, laid out like the reference set."""
    root = tmp_path_factory.mktemp("drawn")
    draw_phantom(root, films=160, seed=3)
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def cxr4():
    if not (SHARED / "cxr4").is_dir():
        pytest.skip("the real films (shared/data/cxr4 beside the repository) are not on this machine")
    return SHARED / "cxr4"


@pytest.fixture(scope="session")
def odd():
    if not (SHARED / "odd").is_dir():
        pytest.skip("the odd films (shared/data/odd beside the repository) are not on this machine")
    return SHARED / "odd"


def save_film(path, seed=0, size=(40, 30), mode="L", **options):
    """A film of noise of its own."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, **options)
    return path


@pytest.fixture
def film():
    return save_film


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
