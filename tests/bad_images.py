"""Every way in which an image's file can be bad or odd, as files to test with."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

USED = "used"


class Odd(NamedTuple):
    """A file to write, and what becomes of it: USED, or a part of the reason that rejected.csv gives."""

    write: Callable[[Path], object]
    expected: str
    name: str = "odd.png"


def ramp(size: tuple[int, int] = (60, 50), mode: str = "RGB") -> Image.Image:
    """A picture brighter to the right and to the bottom."""
    x, y = np.meshgrid(np.linspace(0, 150, size[0]), np.linspace(0, 90, size[1]))
    return Image.fromarray((x + y).astype(np.uint8)).convert(mode)


def saved(picture: Callable[[], Image.Image] = ramp, format: str = "PNG", **options) -> Callable[[Path], None]:
    return lambda path: picture().save(path, format=format, **options)


def content(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(data)


def cut(format: str, keep: Callable[[int], int]) -> Callable[[Path], None]:
    """A picture of which the end is missing."""

    def write(path: Path) -> None:
        ramp((200, 200)).save(path, format=format)
        os.truncate(path, keep(path.stat().st_size))

    return write


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG file of these chunks: (name, content)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*parts) for parts in (*chunks, (b"IEND", b"")))


def header(width: int, height: int) -> tuple[bytes, bytes]:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def with_alpha(mode: str) -> Image.Image:
    image = ramp(mode=mode)
    image.putalpha(128)
    return image


def frames(format: str, **options) -> Callable[[Path], None]:
    return saved(format=format, save_all=True, append_images=[Image.new("RGB", (60, 50), "red")], **options)


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def link_out_of_the_root(path: Path) -> None:
    original = path.parents[3] / "elsewhere" / "original.png"
    original.parent.mkdir(exist_ok=True)
    ramp().save(original)
    path.symlink_to(original)


def link_to_a_folder(path: Path) -> None:
    (path.parents[3] / "elsewhere").mkdir(exist_ok=True)
    path.symlink_to(path.parents[3] / "elsewhere")


def too_many_bytes(path: Path) -> None:
    ramp().save(path)
    os.truncate(path, 300_000_000)  # a hole: takes no room on the disk


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"

BAD_IMAGES = {
    "zero bytes": Odd(content(b""), "empty file"),
    "text": Odd(content(b"no image\n"), "not a JPEG, PNG or DICOM image"),
    "a page of a browser": Odd(
        content(b"<!DOCTYPE html><title>404</title>"), "not a JPEG, PNG or DICOM image", "odd.jpg"
    ),
    "LFS pointer": Odd(content(LFS), "a Git LFS pointer, not the image itself: run git lfs pull", "odd.jpg"),
    "JPEG cut in the middle": Odd(cut("JPEG", lambda n: n // 2), "truncated", "odd.jpg"),
    "JPEG cut in its header": Odd(cut("JPEG", lambda n: 20), "truncated", "odd.jpg"),
    "JPEG without its last bytes": Odd(cut("JPEG", lambda n: n - 40), "truncated", "odd.jpg"),
    "PNG cut in the middle": Odd(cut("PNG", lambda n: n // 2), "truncated"),
    "PNG cut in its header": Odd(cut("PNG", lambda n: 20), "truncated"),
    "JPEG of noise": Odd(content(b"\xff\xd8\xff\xe0" + bytes(range(256))), "truncated or damaged", "odd.jpg"),
    "PNG whose pixels are noise": Odd(content(png(header(60, 50), (b"IDAT", bytes(range(256))))), "damaged"),
    "PNG named JPEG": Odd(saved(), USED, "odd.jpg"),
    "JPEG named PNG": Odd(saved(format="JPEG"), USED),
    "upper-case ending": Odd(saved(format="JPEG"), USED, "ODD.JPEG"),
    "GIF named PNG": Odd(saved(format="GIF"), "a GIF image: convert it to PNG"),
    "TIFF named PNG": Odd(saved(format="TIFF"), "a TIFF image: convert it to PNG"),
    "BMP named JPEG": Odd(saved(format="BMP"), "a BMP image: convert it to PNG", "odd.jpg"),
    "WEBP": Odd(saved(format="WEBP"), "a WEBP image: convert it to PNG", "odd.webp"),
    "JPEG 2000": Odd(saved(format="JPEG2000"), "a JPEG 2000 image: convert it to PNG", "odd.jp2"),
    "DICOM": Odd(
        content(b"\0" * 128 + b"DICM"),
        "a DICOM file that is truncated or damaged",
        "odd.dcm",
    ),
    "no ending": Odd(saved(), USED, "odd"),
    "JPEG named JFIF": Odd(saved(format="JPEG"), USED, "odd.jfif"),
    "JPEG named JPE": Odd(saved(format="JPEG"), USED, "odd.jpe"),
    "16 bits": Odd(saved(lambda: Image.fromarray(np.asarray(ramp(mode="L")).astype(np.uint16) * 16)), USED),
    "1 bit": Odd(saved(lambda: ramp(mode="1")), USED),
    "CMYK": Odd(saved(lambda: ramp(mode="CMYK"), "JPEG"), USED, "odd.jpg"),
    "progressive CMYK": Odd(saved(lambda: ramp(mode="CMYK"), "JPEG", progressive=True), USED, "odd.jpg"),
    "palette": Odd(saved(lambda: ramp(mode="P")), USED),
    "palette with transparency": Odd(saved(lambda: ramp(mode="P"), transparency=bytes(range(256))), USED),
    "RGBA": Odd(saved(lambda: with_alpha("RGB")), USED),
    "grey with alpha": Odd(saved(lambda: with_alpha("L")), USED),
    "EXIF-rotated JPEG": Odd(saved(format="JPEG", exif=turned(6)), USED, "odd.jpg"),
    "EXIF-rotated PNG": Odd(saved(exif=turned(8)), USED),
    "EXIF of noise": Odd(saved(format="JPEG", exif=b"Exif\0\0noise"), "damaged: not a TIFF file", "odd.jpg"),
    "animated PNG": Odd(frames("PNG"), USED),
    "two pictures in a JPEG": Odd(frames("MPO"), USED, "odd.jpg"),
    "animated GIF named PNG": Odd(frames("GIF"), "a GIF image: convert it to PNG"),
    "1x1": Odd(saved(lambda: ramp((1, 1))), "1x1 pixels: too small to be an image"),
    "a line": Odd(saved(lambda: ramp((500, 3))), "500x3 pixels: too small to be an image"),
    "bomb": Odd(content(png(header(20_000, 20_000), (b"IDAT", zlib.compress(b"")))), "far more than any image has"),
    "just too large": Odd(content(png(header(9_000, 9_000))), "9000x9000 pixels, far more than any image has"),
    "too many bytes": Odd(too_many_bytes, "300,000,000 bytes, far more than any image has"),
    "link out of the root": Odd(link_out_of_the_root, USED),
    "link to nothing": Odd(link("gone.png"), "a broken link"),
    "link to itself": Odd(link("odd.png"), "a link that leads to itself"),
    "link to a folder": Odd(link_to_a_folder, "a link to a folder"),
    "link to a device": Odd(link("/dev/zero"), "a pipe, socket or device"),
    "pipe": Odd(os.mkfifo, "a pipe, socket or device"),
    "spaces": Odd(saved(), USED, "  a  image .png"),
    "quotes and commas": Odd(saved(), USED, "a \"b\", 'c'; $x$ `d` \\ &amp; <b>.png"),
    "newlines": Odd(saved(), USED, "a\nnot used: b\r\n.png"),
    "bad image with a newline": Odd(content(b""), "empty file", "c\nnot used: d.png"),
    "control characters": Odd(saved(), USED, "\x1b[31mred\x07\t.png"),
    "Hangul": Odd(saved(), USED, "흉부 사진 1.png"),
    "Hangul in parts": Odd(saved(), USED, "\u1112\u1173\u11bc.png"),
    "emoji": Odd(saved(), USED, "🩻👩‍⚕️.png"),
    "bytes that are no UTF-8": Odd(saved(), USED, os.fsdecode(b"\xff\xfe image \xe9.png")),
    "a name as long as may be": Odd(saved(), USED, "n" * 251 + ".png"),
}
