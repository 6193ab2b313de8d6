"""DICOM: damaged and hostile files are refused, with a reason, before they take time or memory."""

import copy
import io
import random
import re
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from drawn_dicom import compressed, dicom, narrow, ramp8, real, save_dicom, why
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from cxr.data.decode import UNREADABLE, decode


def test_damage_is_named(tmp_path):
    def reason(keep: float = 1, syntax: UID | None = None, **tags) -> str:
        header = dicom(narrow, **tags)
        if syntax:
            header.compress(syntax)
        data = save_dicom(tmp_path / "a.dcm", header).read_bytes()
        (tmp_path / "a.dcm").write_bytes(data[: int(keep * len(data))])
        return why(tmp_path / "a.dcm")

    assert (
        reason(PixelData=narrow.tobytes()[:-100])
        == "a DICOM file that is truncated: 8,092 of 8,192 bytes of its pixels are there"
    )
    assert re.match(r"a DICOM file that is truncated: 7,\d\d\d of 8,192 bytes", reason(keep=0.9))
    assert reason(PixelData=b"").startswith("a DICOM file that is truncated: 0 of 8,192 bytes")
    for size in ({"Rows": 0}, {"Columns": None}):
        assert reason(**size) == "a DICOM file that is damaged: its header has no number of rows or columns"
    table = Dataset()
    table.LUTDescriptor, table.LUTData, table.ModalityLUTType = [4096, 0, 16], b"\0\0", "US"
    assert reason(ModalityLUTSequence=[table]).startswith("a DICOM file that is damaged: its lookup table")
    for syntax in (RLELossless, JPEG2000Lossless):
        assert reason(keep=0.9, syntax=syntax) == "a DICOM file that is truncated or damaged"
    for syntax, kind in ((RLELossless, "RLE"), (JPEG2000Lossless, "JPEG 2000"), (JPEGBaseline8Bit, "JPEG")):
        header = compressed(narrow, 12, syntax, bytes(60))
        assert re.match(
            f"a DICOM file that is damaged: its ({kind} )?image", why(save_dicom(tmp_path / "b.dcm", header))
        )


def test_bombs_are_refused_before_they_are_decoded(tmp_path):
    huge = dicom(Rows=60000, Columns=6000)
    assert "6000x60000 pixels, far more than any image has" in why(save_dicom(tmp_path / "a.dcm", huge))
    large = dicom(np.zeros((1000, 1000), np.uint16))
    large.compress(JPEG2000Lossless)
    large.Rows = large.Columns = 100  # the header does not say what the stream holds
    assert "another size than its header says" in why(save_dicom(tmp_path / "b.dcm", large))
    deflated = dicom()
    deflated.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    assert "Deflated" in why(save_dicom(tmp_path / "c.dcm", deflated))
    stream = np.array([1, 64, *[0] * 14], "<u4").tobytes() + b"\x81\0" * 10_000_000  # 1.3 GB of zeros
    run_length = compressed(np.zeros((100, 100), np.uint8), 8, RLELossless, stream)
    start = time.monotonic()
    assert "more pixels than its header says" in why(save_dicom(tmp_path / "d.dcm", run_length))
    assert time.monotonic() - start < 2


def edited(header: Dataset, path: Path, edit) -> Path:
    """A file whose compressed image is changed by `edit`."""
    frame = pydicom.encaps.get_frame(header.PixelData, 0, number_of_frames=1)
    header.PixelData = encapsulate([edit(frame)])
    header["PixelData"].is_undefined_length = True
    return save_dicom(path, header)


def test_streams_that_ask_for_more_than_their_header_says(tmp_path):
    """A few bytes of JPEG 2000 or JPEG may name thousands of tiles or hundreds of colours."""
    wavelet = dicom(np.zeros((1200, 1200), np.uint16))
    wavelet.compress(JPEG2000Lossless)
    stream = pydicom.encaps.get_frame(wavelet.PixelData, 0, number_of_frames=1)
    size = stream.index(b"\xff\x51") + 4  # behind the marker and its length
    tiles = lambda s: s[: size + 18] + (24).to_bytes(4, "big") * 2 + s[size + 26 :]  # noqa: E731
    assert "of too many parts" in why(edited(copy.deepcopy(wavelet), tmp_path / "tiles.dcm", tiles))
    style = stream.index(b"\xff\x52")

    def precincts(s: bytes) -> bytes:
        length = int.from_bytes(s[style + 2 : style + 4], "big")
        levels = s[style + 9]
        changed = bytearray(s[: style + 2 + length] + bytes([0x11] * (levels + 1)) + s[style + 2 + length :])
        changed[style + 2 : style + 4] = (length + levels + 1).to_bytes(2, "big")
        changed[style + 4] |= 1
        return bytes(changed)

    assert "of too many parts" in why(edited(copy.deepcopy(wavelet), tmp_path / "precincts.dcm", precincts))
    file = io.BytesIO()
    Image.fromarray(np.stack([ramp8] * 3, 2)).save(file, "JPEG")
    colours = compressed(ramp8, 8, JPEGBaseline8Bit, file.getvalue())
    assert "its image has colours" in why(save_dicom(tmp_path / "colours.dcm", colours))


@pytest.mark.parametrize(("rows", "columns"), [(0, 256), (65535, 65535), (20000, 256)])
def test_a_jpeg_that_names_another_size_is_refused_before_a_decoder_takes_memory(tmp_path, rows, columns):
    file = io.BytesIO()
    Image.fromarray(ramp8).save(file, "JPEG")
    stream = bytearray(file.getvalue())
    at = stream.index(b"\xff\xc0") + 5
    stream[at : at + 4] = rows.to_bytes(2, "big") + columns.to_bytes(2, "big")
    for syntax in (JPEGBaseline8Bit, JPEGLosslessSV1):
        header = compressed(ramp8, 8, syntax, bytes(stream))
        assert "another size than its header says" in why(save_dicom(tmp_path / "a.dcm", header))


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
def test_a_truncated_jpeg_is_not_filled_up_with_grey(tmp_path, share):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 128), np.uint8)).save(file, "JPEG")
    stream = file.getvalue()[: int(share * len(file.getvalue()))]
    header = compressed(np.zeros((128, 128), np.uint8), 8, JPEGBaseline8Bit, stream)
    assert why(save_dicom(tmp_path / "cut.dcm", header)).startswith("a DICOM file that is damaged")


def test_headers_of_too_many_parts(tmp_path):
    path = save_dicom(tmp_path / "items.dcm", dicom(narrow))
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * 30_000
    table = b"\x28\0\x10\x30SQ\0\0" + len(items).to_bytes(4, "little") + items  # VOILUTSequence
    path.write_bytes(path.read_bytes().replace(b"\xe0\x7f\x10\0OW", table + b"\xe0\x7f\x10\0OW"))
    assert "its header has too many parts" in why(path)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The bytes of a file of each encoding."""
    folder = tmp_path_factory.mktemp("sources")
    plain, run_length, wavelet = (dicom(narrow, WindowCenter=2000, WindowWidth=3000) for _ in range(3))
    run_length.compress(RLELossless)
    wavelet.compress(JPEG2000Lossless)
    noise = dicom(np.random.default_rng(0).integers(0, 4096, (40, 40), np.uint16))
    noise.compress(RLELossless)
    drawn = {"plain": plain, "RLE": run_length, "RLE of noise": noise, "JPEG 2000": wavelet}
    files = {name: save_dicom(folder / "source.dcm", header).read_bytes() for name, header in drawn.items()}
    ultrasound = real("JPGLosslessP14SV1_1s_1f_8b.dcm").read_bytes()
    return files | {"lossless JPEG": ultrasound.replace(b"CS\x02\0US", b"CS\x02\0CR", 1)}


def mutant(random_: random.Random, source: bytes, begin: int) -> bytes:
    """A file with changed, inserted or lost bytes behind its first `begin`."""
    data = bytearray(source)
    end = min(len(data), random_.choice([begin + 470, begin + 1070, len(data)]))
    at = random_.randrange(begin, end - 4)
    match random_.randrange(4):
        case 0:
            for _ in range(random_.randrange(1, 9)):
                data[random_.randrange(begin, end)] = random_.randrange(256)
        case 1:
            data = data[:at]
        case 2:
            data[at : at + 4] = random_.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
        case _:
            data[at:at] = random_.randbytes(random_.randrange(1, 200))
    return bytes(data)


def outcomes(path: Path, mutants: Iterable[bytes], capfd: pytest.CaptureFixture) -> set[str]:
    """What becomes of files: each is decoded or refused with a reason, in 5 seconds; nothing else is raised, printed,
    or quoted from a header."""
    ends = set()
    for data in mutants:
        path.write_bytes(data)
        start = time.monotonic()
        try:
            decode(path, 64)
            ends.add("decoded")
        except UNREADABLE as error:
            assert "Doe" not in str(error) and "4711" not in str(error)
            ends.add(str(error))
        assert time.monotonic() - start < 5
    assert "".join(capfd.readouterr()) == ""
    return ends


@pytest.mark.parametrize(
    ("number", "seed"), [(300, 0), pytest.param(6000, 1, marks=pytest.mark.long)], ids=["fast", "long"]
)
def test_damaged_and_hostile_files(sources, tmp_path, capfd, number, seed):
    random_ = random.Random(seed)
    chosen = random_.choices([*sources.values()], weights=(4, 4, 4, 4, 1), k=number)  # the last one takes longest
    ends = outcomes(tmp_path / "mutant.dcm", (mutant(random_, source, 132) for source in chosen), capfd)
    assert "decoded" in ends and len(ends) > 10


@pytest.mark.parametrize(
    ("number", "seed"), [(200, 0), pytest.param(3000, 1, marks=pytest.mark.long)], ids=["fast", "long"]
)
def test_damaged_run_lengths(sources, tmp_path, capfd, number, seed):
    """Damage of the compressed pixels alone: those of another length are refused, and no decoder crashes."""
    random_ = random.Random(seed)
    chosen = [sources[random_.choice(["RLE", "RLE of noise"])] for _ in range(number)]
    mutants = (mutant(random_, source, source.index(b"\xe0\x7f\x10\0")) for source in chosen)
    ends = outcomes(tmp_path / "mutant.dcm", mutants, capfd)
    for part in ("decoded", "bytes of its pixels are there", "more pixels than", "other parts than"):
        assert any(part in end for end in ends), part
