"""The pictures that TensorBoard has of a run."""

import logging
from pathlib import Path


def board_pictures(run: Path, prefix: str) -> dict[str, bytes]:
    """The latest picture of each tag that begins with `prefix`, as a PNG file, by the rest of the tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logging.getLogger("tensorboard").setLevel(logging.ERROR)  # it tells of each file that it reads
    # By time, for files of the same second can be read in another order than they were written; without purging, which
    # then takes the steps of the first file for those of a run that was resumed, and drops the others.
    events = EventAccumulator(str(run), size_guidance={"images": 0}, purge_orphaned_data=False)
    events.Reload()
    return {
        tag.removeprefix(prefix): max(events.Images(tag), key=lambda image: image.wall_time).encoded_image_string
        for tag in events.Tags()["images"]
        if tag.startswith(prefix)
    }
