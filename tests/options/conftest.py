"""A command that ends with one line."""

import pytest


@pytest.fixture
def said(run, tmp_path, monkeypatch):
    """Run a command that has to end with one line; returns its exit code and the line."""
    monkeypatch.chdir(tmp_path)

    def call(main, *words):
        code, _, err = run(main, *words)
        (line,) = (line for line in err.splitlines() if line.startswith("cxr: "))
        assert "Traceback" not in err
        return code, line

    return call
