"""A folder of pictures of where networks looked, one for each image that cxr.predict classifies."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

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

    Raises:
        UserError: the folder cannot be made, or captum is not installed.
    """

    def __init__(self, folder: str) -> None:
        from cxr.models.heatmaps import NEEDED, is_installed

        self.folder, self.number = Path(folder).expanduser(), 0
        if not is_installed():
            raise UserError(f"heatmaps={folder}: {NEEDED}")
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"heatmaps={folder}: cannot be made ({error.strerror})") from error

    def begin(self, model: "Ensemble", number: int | None) -> None:
        """Begin after the pictures of a stopped command; None: there is none.

        Raises:
            UserError: a network has no heatmaps, or a folder to begin in is not empty.
        """
        _ = model.layers  # found now, and not after the first images
        if number is None and any(self.folder.iterdir()):
            raise UserError(f"heatmaps={self.folder}: must be a folder that is empty or does not exist yet")
        self.number = number or 0

    def draw(
        self, model: "Ensemble", images: Mapping[int, "Tensor"], probabilities: np.ndarray, files: Sequence[Path]
    ) -> list[str]:
        """Write a picture of each image, for its predicted class; returns their names.

        Args:
            images: as for Ensemble.probabilities(), whose result is `probabilities`.
            files: of the images.
        """
        import torch

        from cxr.reporting.heatmap_pictures import beside, captioned

        note = ". ".join(["Not a medical device", *filter(None, [model.note])])
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
                self.write(captioned(beside(image, heatmap), caption, note), names[-1])
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


def heatmap_remarks(networks: "Networks") -> list[str]:
    """How the maps of a network did in the tests of its run; none where its run folder does not tell, or of several."""
    from cxr.jobs.members import Unknown, run_of
    from cxr.reporting.heatmaps_in_words import heatmap_lines

    if len(networks.checkpoints) > 1:
        return []
    try:
        run = run_of(networks.checkpoints[0], networks.model.classes, ())
    except Unknown:
        return []
    tested = read_json(run / METRICS).get("heatmaps")
    return heatmap_lines(tested) if tested else []
