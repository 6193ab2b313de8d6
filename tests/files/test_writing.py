"""Files that are written whole or not at all: short writes, a full disk, and the order that a power cut asks for."""

import errno
import io
import os
import resource
import stat
from pathlib import Path

import pytest

from cxr.files.writing import read_table, replacing, write_table, write_text


@pytest.fixture
def steps(monkeypatch):
    """What is asked of the system, in its order: which file or folder has to be on the disk, and which is renamed."""
    steps, sync, rename = [], os.fsync, os.rename

    def noting_sync(handle):
        steps.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        sync(handle)

    def noting_replace(source, target):
        steps.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    return steps


def test_content_is_on_the_disk_before_its_name_and_the_name_before_we_go_on(tmp_path, steps):
    for write in (lambda path: write_text(path, "a"), lambda path: write_table(path, ["a"], [[1]])):
        write(tmp_path / "a")
        assert steps == ["file", "rename", "folder"]
        steps.clear()


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EIO])
def test_a_folder_that_cannot_be_synced(tmp_path, monkeypatch, number):
    """Some network drives refuse it; a disk that fails is an error."""

    def sync(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", sync)
    if number == errno.EIO:
        with pytest.raises(OSError, match="Input/output error"):
            write_text(tmp_path / "a", "x")
    else:
        write_text(tmp_path / "a", "x")


class Short(io.FileIO):
    """A file that takes at most 100 bytes at a time, as the system may."""

    def write(self, content):
        return super().write(bytes(content)[:100])


def test_short_writes_are_continued(tmp_path, monkeypatch):
    content = os.urandom(100_000)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda path, mode: io.BufferedWriter(Short(path, mode)))
        with replacing(tmp_path / "a", "wb") as file:
            for start in range(0, len(content), 9_001):
                file.write(content[start : start + 9_001])
    assert (tmp_path / "a").read_bytes() == content


def test_a_write_that_the_system_cuts_short_and_then_refuses_leaves_what_was_there(tmp_path):
    write_table(tmp_path / "a.csv", ["n"], [[1]])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_table(tmp_path / "a.csv", ["n"], [[i] for i in range(10_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert read_table(tmp_path / "a.csv") == [{"n": "1"}] and [*tmp_path.iterdir()] == [tmp_path / "a.csv"]
