"""A folder of pictures of where networks looked, one for each image that cxr.predict classifies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr.errors import UserError
from cxr.files.run_folder import METRICS
from cxr.files.writing import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor

    from cxr.jobs.members import Networks
    from cxr.models.ensemble import Ensemble

LONGEST = 60  # characters of a name, of at most 4 bytes each: file systems allow 255 bytes
STEP = 16  # images at a time: gradients take more memory than predictions


class HeatmapFolder:
    """Takes the pictures of images in their order.

    Attributes:
        number: of pictures so far.
        remarks: how the maps did in the tests of the network's run; empty where that is not known.

    Raises:
        UserError: the folder cannot be made, or captum is not installed.
    """

    def __init__(self, folder: str) -> None:
        from cxr.models.heatmaps import NEEDED, is_installed

        self.folder, self.number, self.remarks, self.note = Path(folder).expanduser(), 0, list[str](), ""
        if not is_installed():
            raise UserError(f"heatmaps={folder}: {NEEDED}")
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"heatmaps={folder}: cannot be made ({error.strerror})") from error

    def begin(self, networks: "Networks", number: int | None) -> None:
        """Begin the pictures of some networks after those of a stopped command; None: there is none.

        Raises:
            UserError: a network has no heatmaps, or a folder to begin in is not empty.
        """
        from cxr.reporting.heatmaps_in_words import ENGLISH, heatmap_lines, heatmaps_failed

        _ = networks.model.layers  # found now, and not after the first images
        if number is None and any(self.folder.iterdir()):
            raise UserError(f"heatmaps={self.folder}: must be a folder that is empty or does not exist yet")
        self.number = number or 0
        tested = tested_heatmaps(networks)
        self.remarks = heatmap_lines(tested) if tested else []
        trust = ENGLISH["heatmaps_untested"] if not tested else ENGLISH["heatmaps_fail"] * heatmaps_failed(tested)
        self.note = "\n".join(filter(None, ["Not a medical device", networks.model.note, trust]))

    def draw(
        self,
        model: "Ensemble",
        images: Mapping[int, "Tensor"],
        probabilities: np.ndarray,
        unfamiliar: np.ndarray | None,
        files: Sequence[Path],
    ) -> list[str]:
        """Write a picture of each image, for its predicted class; returns their names.

        Args:
            images: as for Ensemble.judge(), whose results are `probabilities` and `unfamiliar`.
            files: of the images.
        """
        import torch

        from cxr.reporting.heatmap_pictures import beside, captioned

        predicted, names = probabilities.argmax(1), []
        for start in range(0, len(files), STEP):
            part = {size: stack[start : start + STEP] for size, stack in images.items()}
            targets = torch.from_numpy(predicted[start : start + STEP]).to(model.device)
            maps = model.heatmaps(part, targets).cpu().numpy()
            shown = (part[max(part)][:, 0] * 255).round().byte().cpu().numpy()
            for row, (image, heatmap) in enumerate(zip(shown, maps, strict=True), start):
                self.number += 1
                names.append(picture_name(self.number, files[row]))
                caption = f"{model.classes[predicted[row]]}: {probabilities[row].max():.3f}"
                if unfamiliar is not None and unfamiliar[row] > 1:
                    caption = f"UNLIKE THE TRAINING IMAGES: do not use this prediction\n{caption}"
                self.write(captioned(beside(image, heatmap), caption, self.note), names[-1])
        return names

    def write(self, picture: "Figure", name: str) -> None:
        """Write a picture. Raises UserError where that is not possible."""
        try:
            picture.savefig(self.folder / name)
        except OSError as error:
            raise UserError(f"heatmaps={self.folder}: cannot be written ({error.strerror})") from error


def picture_name(number: int, file: Path) -> str:
    """The name of the picture of a file: its number, so that no two have one name, and as much of the file's name as
    every system takes."""
    safe = "".join(c if c.isprintable() and c not in '<>:"/\\|?*' else "_" for c in file.name)
    return f"{number:06}_{safe[-LONGEST:]}.png"


def tested_heatmaps(networks: "Networks") -> Mapping[str, Any] | None:
    """How the maps of a network did in the tests of its run, the part "heatmaps" of metrics.json; None where its run
    folder does not tell, or of several networks."""
    from cxr.jobs.members import find_run

    first, *others = networks.checkpoints
    run = None if others else find_run(first, networks.model.classes)
    return run and read_json(run / METRICS).get("heatmaps")
