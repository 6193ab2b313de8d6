"""The pictures that TensorBoard has of a run."""

import logging
from pathlib import Path


def board_pictures(run: Path, prefix: str) -> dict[str, bytes]:
    """The latest picture of each tag that begins with `prefix`, as a PNG file, by the rest of the tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it warns of each resumed run, whose steps it purges
    events = EventAccumulator(str(run), size_guidance={"images": 0})
    events.Reload()
    return {
        tag.removeprefix(prefix): events.Images(tag)[-1].encoded_image_string
        for tag in events.Tags()["images"]
        if tag.startswith(prefix)
    }
