"""Planted copies are found, and nothing else is."""

import io
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from cxr.data.audit import SIZE, audit, known_copies, same_bytes, summary
from cxr.data.copies import find_common, find_copies
from cxr.data.external import small_films
from cxr.data.sources import read_folder
from cxr.data.store import open_store


def copy_of(path, rng):
    """The film as it comes back from elsewhere: cropped by 3 %, resized, brighter or darker, saved at low quality."""
    film = Image.open(path).convert("L")
    width, height = film.size
    left, top = (round(rng.uniform(0, 0.03) * side) for side in film.size)
    film = film.crop((left, top, left + round(0.97 * width), top + round(0.97 * height)))
    film = film.resize([round(side * rng.uniform(0.6, 1.4)) for side in film.size], Image.Resampling.LANCZOS)
    gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-20, 20)
    film = film.point(lambda value: min(max(value * gain + offset, 0), 255))
    file = io.BytesIO()
    film.save(file, "JPEG", quality=int(rng.integers(35, 80)))
    return file.getvalue()


def plant(films, folder, number):
    """Copy the films of a table to a folder, and `number` altered copies of some beside them, by name."""
    rng = np.random.default_rng(0)
    for file in films:
        (folder / "A").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / "A" / file.name)
    (folder / "B").mkdir()
    chosen = rng.choice(len(films), number, replace=False)
    for row in chosen:
        (folder / "B" / f"{films[row].stem}.jpg").write_bytes(copy_of(films[row], rng))


def found_in(folder, cache):
    films = read_folder(folder)
    names = [file.rsplit("/", 1)[-1].rsplit(".", 1)[0] for file in films.file.tolist()]
    return [(names[first], names[second]) for first, second, _ in known_copies(films, cache, "near")[2]]


def test_planted_copies_of_real_films(cxr4, tmp_path):
    """Of 400 films, 20 planted: at least 19 are found, and no independent film is flagged."""
    rng = np.random.default_rng(1)
    films = sorted((cxr4 / "train").glob("NORMAL/*")) + sorted((cxr4 / "train").glob("PNEUMONIA/*"))
    plant([films[i] for i in rng.choice(len(films), 400, replace=False)], tmp_path / "films", 20)
    found = found_in(tmp_path / "films", tmp_path / "cache")
    assert all(first == second for first, second in found), "a pair of films that show different patients"
    assert len(found) >= 19


def test_planted_copies_are_found_in_another_set_though_kept_small(cxr4, tmp_path):
    """Of 20 altered copies, at least 19 find their film among 300, at the size that lies beside a checkpoint."""
    rng = np.random.default_rng(2)
    films = sorted((cxr4 / "train").glob("PNEUMONIA/*"))
    plant([films[i] for i in rng.choice(len(films), 300, replace=False)], tmp_path / "films", 20)
    (tmp_path / "altered").mkdir()
    (tmp_path / "films" / "B").rename(tmp_path / "altered" / "B")
    tables = [read_folder(tmp_path / name) for name in ("altered", "films")]
    stores = [small_films(known_copies(table, tmp_path / "cache", "near")[0]) for table in tables]
    found = find_common(*stores)
    stems = [[file.rsplit("/", 1)[-1].rsplit(".", 1)[0] for file in table.file.tolist()] for table in tables]
    assert all(stems[0][ours] == stems[1][theirs] for ours, theirs, _ in found)
    assert len(found) >= 19


def test_known_copies_of_the_reference_set(cxr4, tmp_path):
    """Two that were known beforehand, among 300 others; more in the notes of the commit."""
    names = ["train/COVID19/COVID19(277).jpg", "train/PNEUMONIA/person1004_virus_1686.jpg"]
    names += ["train/COVID19/COVID19(265).jpg", "test/COVID19/COVID19(516).jpg"]
    others = sorted(cxr4.glob("train/TURBERCULOSIS/*"))[:100]
    for file in [cxr4 / name for name in names] + others:
        (tmp_path / "films" / "X").mkdir(parents=True, exist_ok=True)
        shutil.copy(file, tmp_path / "films" / "X" / file.name)
    found = {frozenset(pair) for pair in found_in(tmp_path / "films", tmp_path / "cache")}
    assert found == {frozenset(("COVID19(277)", "person1004_virus_1686")), frozenset(("COVID19(265)", "COVID19(516)"))}


def test_planted_copies_of_drawn_films(drawn, tmp_path):
    films = sorted(path for path in (drawn / "train").rglob("*") if path.is_file())
    plant(films, tmp_path / "films", 10)
    found = found_in(tmp_path / "films", tmp_path / "cache")
    # Two drawings of one patient may differ in little but their noise.
    assert all(first.split("-")[0] == second.split("-")[0] for first, second in found)
    assert sum(first == second for first, second in found) >= 9


def test_films_are_compared_once_whatever_they_are_called(film, tmp_path, monkeypatch):
    film(tmp_path / "in" / "NORMAL" / "a.png", size=(200, 200))
    film(tmp_path / "in" / "TB" / "b.png", size=(200, 200))
    film(tmp_path / "in" / "TB" / "c.png", size=(200, 200), seed=1)
    (tmp_path / "in" / "NORMAL" / "0.png").write_text("no film")
    assert known_copies(read_folder(tmp_path / "in"), tmp_path / "cache", "near")[2] == [(0, 1, pytest.approx(1))]
    monkeypatch.setattr("cxr.data.copies.find_copies", None)
    (tmp_path / "in" / "TB" / "c.png").rename(tmp_path / "in" / "TB" / "d.png")
    assert known_copies(read_folder(tmp_path / "in"), tmp_path / "cache", "near")[2] == [(0, 1, pytest.approx(1))]


@pytest.mark.parametrize("number", [1, 2, 70])
def test_few_films_and_films_without_content(number, tmp_path):
    """Black films are no copies of each other: there is nothing to compare. (Of the same bytes, the audit says so.)"""
    (tmp_path / "in" / "A").mkdir(parents=True)
    for i in range(number):
        Image.new("L", (50 + i, 50)).save(tmp_path / "in" / "A" / f"{i}.png")
    store, _ = open_store(read_folder(tmp_path / "in"), SIZE, tmp_path / "cache")
    assert find_copies(store) == []


@pytest.fixture
def four(film, tmp_path):
    """Two films of the same bytes, a third that is the first one saved anew, and one of its own."""
    first = film(tmp_path / "in" / "NORMAL" / "a.png", size=(200, 200))
    film(tmp_path / "in" / "TB" / "b.png", size=(200, 200))
    Image.open(first).save(tmp_path / "in" / "TB" / "c.jpg", quality=95)
    film(tmp_path / "in" / "TB" / "d.png", size=(200, 200), seed=1)
    return read_folder(tmp_path / "in")


def test_exact_copies_are_those_of_the_same_bytes(four, tmp_path):
    pairs = {how: [pair[:2] for pair in known_copies(four, tmp_path / "cache", how)[2]] for how in ("exact", "near")}
    assert pairs["exact"] == [(0, 1)] and sorted(pairs["near"]) == [(0, 1), (0, 2), (1, 2)]
    assert same_bytes(["x", "y", "x", "z", "x"]) == [(0, 2, 1.0), (0, 4, 1.0)], (
        "one pair a film, however many are alike"
    )


def test_what_is_not_looked_for_in_many_films_is_said(four, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    assert len(known_copies(four, tmp_path / "cache", "auto")[2]) == 3 and not caplog.text
    monkeypatch.setattr("cxr.data.audit.NEAR", 3)
    store, films, copies = known_copies(four, tmp_path / "cache", "auto")
    assert [pair[:2] for pair in copies] == [(0, 1)]
    assert "4 films are many: only copies of the same bytes" in caplog.text and "data.copies=near" in caplog.text
    assert "not looked for: data.copies=near does" in {why for *_, why in summary(audit(films, store, copies, "auto"))}
    caplog.clear()
    known_copies(four, tmp_path / "cache", "exact")
    assert not caplog.text, "who asks for less need not be told"


def test_however_many_films_memory_holds_a_few_at_a_time(film, tmp_path, monkeypatch):
    """Films are compared with some of the others at a time: with these few, each with itself and all others alone."""
    for i in range(30):
        film(tmp_path / "in" / "A" / f"{i:02}.png", seed=i % 20, size=(80, 80))
    store, _ = open_store(read_folder(tmp_path / "in"), SIZE, tmp_path / "cache")
    whole = find_copies(store)
    monkeypatch.setattr("cxr.data.copies.COLUMNS", 7)
    assert [pair[:2] for pair in find_copies(store)] == [pair[:2] for pair in whole] and len(whole) == 10
