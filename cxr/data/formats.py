"""What a file is, by its first bytes, whatever its name."""

HEAD = 132  # bytes that tell
# The largest detectors give 20 million pixels. This many, in the costliest kind of file (a progressive JPEG in CMYK,
# all of whose coefficients libjpeg keeps), take 470 MB; see cxr.data.grey.to_grey() for the others.
MAX_PIXELS = 36_000_000
PNG = b"\x89PNG\r\n\x1a\n"
# Other formats, to name what cannot be read: where the bytes that mark them stand.
OTHER_FORMATS = (
    ("WEBP", 8, b"WEBP"),
    ("TIFF", 0, b"II*\0"),
    ("TIFF", 0, b"MM\0*"),
    ("BMP", 0, b"BM"),
    ("GIF", 0, b"GIF8"),
    ("JPEG 2000", 4, b"jP  \r\n\x87\n"),
    ("JPEG 2000", 0, b"\xff\x4f\xff\x51"),
    ("HEIC", 4, b"ftyphei"),
)


class BadImage(ValueError):
    """A file that cannot be used as an image; the message is the reason that users read."""


def no_image(head: bytes) -> str:
    """Why a file that begins with `head` cannot be a JPEG, PNG or DICOM image, or ""."""
    if not head:
        return "empty file"
    if head.startswith(b"version https://git-lfs"):
        return "a Git LFS pointer, not the image itself: run git lfs pull"
    if head.startswith((b"\xff\xd8", PNG)) or is_dicom(head):
        return ""
    other = next((name for name, at, magic in OTHER_FORMATS if head.startswith(magic, at)), None)
    return f"a {other} image: convert it to PNG" if other else "not a JPEG, PNG or DICOM image"


def is_deep_colour(head: bytes) -> bool:
    """Whether a file that begins with `head` is a PNG of 16 bits a channel, and not plain grey: Pillow reads only the
    upper 8 bits of these."""
    return head.startswith(PNG) and head[24:25] == b"\x10" and head[25:26] != b"\0"


def is_dicom(head: bytes) -> bool:
    """Whether a file that begins with `head` is a DICOM file."""
    return head.startswith(b"DICM", 128)
