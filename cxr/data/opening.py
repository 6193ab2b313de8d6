"""Read, decode and compare a set of images; refuse it where `data.on_bad` does."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cxr.data.audit import SIZE, Copies, audit, load_copies
from cxr.data.audit_lines import check_doubts, check_rejected
from cxr.data.decode import Reading
from cxr.data.image_table import ImageTable
from cxr.data.sources import read_images
from cxr.data.store import Store, open_stores


class Opened(NamedTuple):
    """Decoded images.

    Attributes:
        images: the table of the N usable ones.
        stores: their pixels, by image size.
        compared: the same at the size at which copies are found.
        copies: the pairs of load_copies().
    """

    images: ImageTable
    stores: Mapping[int, Store]
    compared: Store
    copies: Copies


def open_images(data: Mapping[str, Any], sizes: Sequence[int], cache: Path) -> Opened:
    """Read, decode and compare the images that the options `data.*` name; what an earlier call left in the cache is not
    done again.

    Args:
        sizes: of the stores, sides in pixels.
        cache: folder for decoded images and drawings.

    Raises:
        UserError: they cannot be read or decoded; or `data.on_bad` is fail and some cannot be used, or strict and there
            is any doubt about them.
    """
    table = read_images(data, cache)
    (*stores, compared), images = open_stores(table, (*sizes, SIZE), cache, Reading.of(data))
    if data["on_bad"] == "fail":
        check_rejected(images)
    copies = load_copies(compared, cache, data["copies"])
    if data["on_bad"] == "strict":
        check_doubts(audit(images, compared, copies, data["copies"]), images)
    return Opened(images, dict(zip(sizes, stores, strict=True)), compared, copies)
