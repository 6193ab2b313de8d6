import numpy as np
import pytest
from PIL import Image

from cxr.data.sources import read_folder
from cxr.data.store import decode, open_store


@pytest.fixture
def ramp():
    """A film brighter to the right and, less, to the bottom: every flip and turn shows."""
    x, y = np.meshgrid(np.linspace(0, 200, 96), np.linspace(0, 50, 64))
    return (x + y).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.png", "L"),
        ("a.jpg", "L"),
        ("a.jpg", "RGB"),
        ("a.png", "RGBA"),
        ("a.png", "P"),
        ("a.jpg", "CMYK"),
        ("a.png", "LA"),
    ],
)
def test_any_mode_becomes_the_same_gray(tmp_path, ramp, name, mode):
    Image.fromarray(ramp).convert("RGB").convert(mode).save(tmp_path / name)
    film = decode(tmp_path / name, 32)
    want = np.asarray(Image.fromarray(ramp).resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    assert film.shape == (32, 32) and film.dtype == np.uint8
    assert abs(film.astype(int) - want).mean() < 3


def test_sixteen_bits_keep_their_contrast(tmp_path, ramp):
    Image.fromarray(ramp.astype(np.uint16) * 16).save(tmp_path / "a.png")  # 12 of 16 bits, as detectors give
    film = decode(tmp_path / "a.png", 32)
    assert film.min() < 10 and film.max() > 245 and film[0, 0] < film[0, -1]


def test_exif_rotation_and_wrong_extension(tmp_path, ramp):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    Image.fromarray(ramp).save(tmp_path / "a.jpg", exif=exif)
    film = decode(tmp_path / "a.jpg", 32).astype(int)
    assert film[-1].mean() - film[0].mean() > 100, "left to right has become top to bottom"
    Image.fromarray(ramp).save(tmp_path / "really.png")
    (tmp_path / "really.png").rename(tmp_path / "named.jpg")
    assert decode(tmp_path / "named.jpg", 32).shape == (32, 32)


def bad_files(folder, film):
    whole = film(folder / "whole.jpg", size=(300, 300)).read_bytes()
    (folder / "truncated.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "zero.jpg").write_bytes(b"")
    (folder / "text.png").write_text("version https://git-lfs.github.com/spec/v1\n")
    Image.new("L", (8, 8)).save(folder / "tiff.png", format="TIFF")
    Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    return ["truncated.jpg", "zero.jpg", "text.png", "tiff.png", "bomb.png"]


def test_bad_files_are_named_and_the_rest_is_used(tmp_path, film):
    bad = bad_files(tmp_path / "in" / "NORMAL", film)
    film(tmp_path / "in" / "TB" / "x.png", seed=1)
    films = read_folder(tmp_path / "in")
    store, used = open_store(films, 16, tmp_path / "cache")
    assert used.file.tolist() == ["NORMAL/whole.jpg", "TB/x.png"]
    assert {file for file, _ in used.rejected} == {f"NORMAL/{name}" for name in bad}
    assert all(why for _, why in used.rejected)
    assert store.shape == (2, 16, 16)
    for row, file in enumerate(used.file):
        assert np.array_equal(store[row], decode(films.root / file, 16))


def test_decoded_once_and_anew_when_a_film_changes(tmp_path, film, monkeypatch):
    from cxr.data import store as module

    films = read_folder(film(tmp_path / "in" / "TB" / "x.png").parents[1])
    film(tmp_path / "in" / "NORMAL" / "y.png")
    films = read_folder(tmp_path / "in")
    count = []
    monkeypatch.setattr(module, "decode", lambda path, size: count.append(path) or decode(path, size))
    open_store(films, 16, tmp_path / "cache")
    open_store(films, 16, tmp_path / "cache")
    assert len(count) == 2
    film(tmp_path / "in" / "TB" / "x.png", seed=9, size=(50, 50))
    store, _ = open_store(films, 16, tmp_path / "cache")
    assert len(count) == 4
    assert np.array_equal(store[1], decode(tmp_path / "in" / "TB" / "x.png", 16))


def test_the_odd_films_are_used_or_named(tmp_path, odd, film):
    folder = tmp_path / "in" / "NORMAL"
    folder.mkdir(parents=True)
    originals = [p for p in odd.iterdir() if p.name != "README.csv"]
    assert len(originals) == 10
    for path in originals:
        (folder / path.name).write_bytes(path.read_bytes())
    film(tmp_path / "in" / "TB" / "x.png")
    _, used = open_store(read_folder(tmp_path / "in"), 32, tmp_path / "cache")
    accounted = {*used.file.tolist(), *(file for file, _ in used.rejected)}
    assert accounted == {f"NORMAL/{p.name}" for p in originals} | {"TB/x.png"}
    assert {file.split("/")[1][:2] for file, _ in used.rejected} == {"01", "02", "03", "10"}
