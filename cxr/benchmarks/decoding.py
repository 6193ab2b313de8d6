"""How fast a store is built, against one core that only decodes."""

import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cxr.data.decode import UNREADABLE, decode
from cxr.data.image_table import ImageTable
from cxr.data.store import open_store


def build_rate(images: ImageTable, size: int, repeats: int) -> Mapping[str, Any]:
    """Images/s of one core that decodes and of a build from nothing, in turn; their ratio is build / (core × cores)."""
    cores = os.cpu_count() or 1
    sample = [
        images.root / str(image)
        for image in images.file[np.linspace(0, len(images) - 1, min(len(images), 2000)).astype(int)]
    ]
    core, build = [], []
    for repeat in range(repeats + 1):
        begin = time.perf_counter()
        for path in sample:
            try:
                decode(path, size)
            except UNREADABLE:
                continue
        middle = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="cxr-bench-") as cache:
            start = time.perf_counter()
            open_store(images, size, Path(cache))
            end = time.perf_counter()
        if repeat:  # the first one reads the files from the disk
            core.append(len(sample) / (middle - begin))
            build.append(len(images) / (end - start))
    return {
        "core_images_per_s": core,
        "build_images_per_s": build,
        "ratio": statistics.median(build) / (statistics.median(core) * cores),
        "cores": cores,
    }
