"""Depth, markers, transparency and negatives: what becomes 0 to 255, and what is said about it."""

import csv
import struct
import zlib

import numpy as np
import pytest
from bad_images import png
from PIL import Image

from cxr import predict
from cxr.data.audit import SIZE, audit
from cxr.data.audit_lines import summarise_audit
from cxr.data.decode import BadImage, Reading, decode
from cxr.data.negatives import looks_negative
from cxr.data.sources import read_folder
from cxr.data.store import open_store


@pytest.fixture(scope="module")
def chest(drawn):
    """A chest as an 8-bit grey picture of 96 × 96 pixels."""
    path = sorted((drawn / "train" / "NORMAL").iterdir())[0]
    return np.asarray(Image.open(path).convert("L").resize((96, 96)))


def twelve_bits(chest):
    return chest.astype(np.uint16) * 16


def test_a_marker_at_full_scale_does_not_blacken_a_16_bit_image(tmp_path, chest):
    plain = twelve_bits(chest)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    expected = decode(tmp_path / "plain.png", 96)
    assert expected.outliers == 0
    assert abs(expected.pixels.astype(int) - chest).mean() < 12, "stretched to the full range, and no more"
    for size in (1, 20):
        marked = plain.copy()
        marked[3 : 3 + size, 3 : 3 + size] = 65535
        Image.fromarray(marked).save(tmp_path / "marked.png")
        read = decode(tmp_path / "marked.png", 96)
        assert read.outliers == 1
        rest = np.ones_like(chest, dtype=bool)
        rest[3 : 3 + size, 3 : 3 + size] = False
        assert abs(read.pixels.astype(int) - expected.pixels)[rest].mean() < 4
        assert (read.pixels[~rest] == 255).all()


def test_a_marker_with_smooth_edges_or_some_noise_does_not_either(tmp_path, chest):
    """Its values fill the gap between the image's and its own."""
    plain = twelve_bits(chest)
    Image.fromarray(plain).save(tmp_path / "plain.png")
    expected = decode(tmp_path / "plain.png", 96).pixels.astype(int)
    smooth, noisy = plain.copy(), plain.copy()
    smooth[3:15, 3:15] = np.linspace(0, 65535, 12).astype(np.uint16)
    noisy[3:15, 3:15] = np.random.default_rng(0).integers(4096, 65536, (12, 12))
    for marked in (smooth, noisy):
        Image.fromarray(marked).save(tmp_path / "marked.png")
        read = decode(tmp_path / "marked.png", 96)
        assert read.outliers == 1
        rest = plain == marked
        assert abs(read.pixels.astype(int) - expected)[rest].mean() < 60 and read.pixels[rest].std() > 25


def test_an_image_of_two_values_keeps_both(tmp_path):
    values = np.full((64, 64), 100, dtype=np.uint16)
    values[20:40] = 4000
    Image.fromarray(values).save(tmp_path / "two.png")
    assert set(np.unique(decode(tmp_path / "two.png", 64).pixels)) == {0, 255}


def deep_png(values, colour):
    """A PNG of 16 bits a channel: uint16 (H, W, C); colour type 2 is RGB, 4 grey with alpha."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png((b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0)), (b"IDAT", zlib.compress(rows)))


@pytest.mark.parametrize("colour", [2, 4])
def test_a_16_bit_png_with_colours_that_uses_12_bits_is_rejected(tmp_path, chest, colour):
    path = tmp_path / "deep.png"

    def write(grey):
        channels = [grey] * 3 if colour == 2 else [grey, np.full_like(grey, 65535)]
        path.write_bytes(deep_png(np.stack(channels, axis=2), colour))

    write(twelve_bits(chest))
    with pytest.raises(BadImage, match="uses few of its bits: save it as grey"):
        decode(path, 96)
    marked = twelve_bits(chest)
    marked[3:15, 3:15] = 65535
    write(marked)
    with pytest.raises(BadImage, match="uses few of its bits"):
        decode(path, 96)
    write(chest.astype(np.uint16) * 257)
    assert abs(decode(path, 96).pixels.astype(int) - chest).max() <= 1


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_an_alpha_that_hides_everything_is_ignored(tmp_path, chest, mode):
    picture = Image.fromarray(chest).convert(mode)
    picture.putalpha(0)
    picture.save(tmp_path / "hidden.png")
    assert np.array_equal(decode(tmp_path / "hidden.png", 96).pixels, chest)


def test_negatives_are_recognised_and_done_with_as_asked(tmp_path, chest):
    Image.fromarray(255 - chest).save(tmp_path / "negative.png")
    kept = decode(tmp_path / "negative.png", 96)
    assert kept.negative == 1 and np.array_equal(kept.pixels, 255 - chest)
    assert np.array_equal(decode(tmp_path / "negative.png", 96, Reading("invert")).pixels, chest)
    with pytest.raises(BadImage, match="looks like a negative"):
        decode(tmp_path / "negative.png", 96, Reading("reject"))
    Image.fromarray(chest).save(tmp_path / "positive.png")
    assert decode(tmp_path / "positive.png", 96, Reading("reject")).negative == 0


def test_real_images_are_no_negatives_but_their_negatives_are(cxr4):
    files = sorted(cxr4.glob("test/*/*.jpg"))[::3]
    for size in (64, 100):
        images = np.stack([decode(file, size).pixels for file in files])
        assert looks_negative(images).mean() <= 0.005
        assert looks_negative(255 - images).mean() >= 0.95


def test_the_audit_names_negatives_markers_and_odd_shapes(tmp_path, chest):
    marked = twelve_bits(chest)
    marked[3, 3] = 65535
    pictures = {
        "negative": 255 - chest,
        "outliers": marked,
        "odd_shape": np.hstack([chest, chest]),
        "plain": chest,
    }
    for label in ("NORMAL", "TB"):
        for name, pixels in pictures.items():
            path = tmp_path / "in" / label / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
    store, images = open_store(read_folder(tmp_path / "in"), 128, tmp_path / "cache")
    lines = {line.key: line for line in summarise_audit(audit(images, store, (), "exact"))}
    for key in ("negative", "outliers", "odd_shape"):
        assert (lines[key].number, lines[key].file) == (2, f"NORMAL/{key}.png")


def test_predict_says_which_images_look_like_negatives(tmp_path, chest, folder, run):
    ckpt = folder / "checkpoints" / "best.ckpt"
    (tmp_path / "in").mkdir()
    Image.fromarray(255 - chest).save(tmp_path / "in" / "negative.png")
    Image.fromarray(chest).save(tmp_path / "in" / "positive.png")
    rows = {}
    for choice in ("keep", "invert"):
        words = f"ckpt={ckpt}", f"source={tmp_path / 'in'}", f"data.negatives={choice}", f"out={tmp_path}/{choice}.csv"
        code, _, err = run(predict.main, *words)
        assert code == 0 and f"1 image looks like a negative: {tmp_path}/in/negative.png" in err
        with (tmp_path / f"{choice}.csv").open() as lines:
            rows[choice] = {row["file"].rsplit("/", 1)[-1]: float(row["prob_NORMAL"]) for row in csv.DictReader(lines)}
    upright = pytest.approx(rows["keep"]["positive.png"], abs=1e-3)  # resizing rounds
    assert rows["invert"]["negative.png"] == upright and rows["keep"]["negative.png"] != upright


@pytest.mark.parametrize(("width", "odd"), [(59, True), (61, False), (169, False), (171, True)])
def test_shapes_that_chest_images_do_not_have(tmp_path, chest, width, odd):
    (tmp_path / "set" / "NORMAL").mkdir(parents=True)
    Image.fromarray(chest).resize((width, 100)).save(tmp_path / "set" / "NORMAL" / "a.png")
    store, images = open_store(read_folder(tmp_path / "set"), SIZE, tmp_path / "cache")
    assert bool(audit(images, store, (), "exact")["odd_shape"]) == odd
