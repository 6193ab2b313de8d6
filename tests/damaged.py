"""Every way in which a checkpoint can be none."""

import os
from collections.abc import Callable
from pathlib import Path

import torch


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


class Canary:
    """A pickle of it makes a folder when it is read as a program."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.path),)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "truncated": truncate,
    "flipped": flip,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no checkpoint"),
    "pickle": lambda path: torch.save(Canary(path.with_name("canary")), path),
    "of another network": lambda path: torch.save({"hyper_parameters": {}, "state_dict": {}}, path),
    "the best, which has no optimizer": lambda path: path.write_bytes(path.with_name("best.ckpt").read_bytes()),
}
