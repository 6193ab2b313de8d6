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
from cxr.data.sources import Films
from cxr.data.store import open_store


def build_rate(films: Films, size: int, repeats: int) -> Mapping[str, Any]:
    """Films/s of one core that decodes and of a build from nothing, in turn; their ratio is build / (core × cores)."""
    cores = os.cpu_count() or 1
    sample = [
        films.root / str(film) for film in films.file[np.linspace(0, len(films) - 1, min(len(films), 2000)).astype(int)]
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
            open_store(films, size, Path(cache))
            end = time.perf_counter()
        if repeat:  # the first one reads the files from the disk
            core.append(len(sample) / (middle - begin))
            build.append(len(films) / (end - start))
    return {
        "core_images_per_s": core,
        "build_images_per_s": build,
        "ratio": statistics.median(build) / (statistics.median(core) * cores),
        "cores": cores,
    }
