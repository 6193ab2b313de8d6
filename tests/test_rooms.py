"""The rooms of cxr are in one order, that of the map: none imports from a room after it, not even within a function."""

import ast
import re
from pathlib import Path

import cxr

HOUSE = Path(cxr.__file__).parent
ROOMS = re.findall(r"^\| \[(\w+)\]\(\w+(?:/README\.md)?\) \|", (HOUSE / "README.md").read_text(encoding="utf-8"), re.M)


def imported_rooms(file):
    """The rooms that a file imports from, anywhere in it; a type check alone is no import."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cxr."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "cxr":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cxr."))


def test_the_map_has_every_room():
    assert sorted(ROOMS) == sorted(folder.name for folder in HOUSE.iterdir() if (folder / "__init__.py").exists())


def test_no_room_imports_from_one_after_it():
    wrong = [
        f"{file.relative_to(HOUSE)} imports {other}"
        for number, room in enumerate(ROOMS)
        for file in sorted((HOUSE / room).rglob("*.py"))
        for other in imported_rooms(file)
        if other in ROOMS[number + 1 :] or ((HOUSE / f"{other}.py").exists() and other != "errors")
    ]
    assert not wrong


def test_the_inner_rooms_know_no_command_line():
    """data, models and evaluation can be used without Hydra's command line, signals or Slurm."""
    for room in ("data", "evaluation", "models"):
        for file in (HOUSE / room).glob("*.py"):
            text = file.read_text(encoding="utf-8")
            assert not re.search(r"hydra\.(core|_internal|main)|cxr\.(jobs|training)|slurm", text), file


def test_every_command_has_one_file_of_its_name_and_no_two_rooms_share_another():
    names = [path.stem for path in HOUSE.rglob("*.py") if path.stem != "__init__"]
    commands = {path.stem for path in HOUSE.glob("*.py")}
    assert {name for name in names if names.count(name) > 1} <= commands
