"""One or several networks that predict together."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn.functional import interpolate

from cxr.evaluation.averaging import log_mean
from cxr.models.classifier import Classifier
from cxr.models.heatmaps import heatmaps


class Ensemble:
    """Networks of the same classes, each at the image size and in the precision of its training.

    Args:
        members: the networks, all on one device.
        temperature: calibrates the mean of their probabilities, see log_mean(); None: the mean stays as it is.

    Attributes:
        classes, note, device: as those of a Classifier.
        sizes: each image size that a network needs, once.
    """

    def __init__(self, members: Sequence[Classifier], temperature: float | None = None) -> None:
        self.members, self.temperature = members, temperature
        self.classes, self.device = members[0].classes, members[0].device
        self.note = "; ".join(dict.fromkeys(member.note for member in members if member.note))
        self.sizes = tuple(dict.fromkeys(member.hparams.image_size for member in members))

    @torch.inference_mode()
    def probabilities(self, images: Mapping[int, Tensor]) -> np.ndarray:
        """Calibrated probabilities, float32 (B, C), of the same images in each of `sizes`: (B, 1, S, S) from 0 to 1."""
        each = [m.probabilities(images[m.hparams.image_size]).cpu().numpy() for m in self.members]
        if len(each) == 1:
            return each[0]
        return softmax(log_mean(each) / np.float32(self.temperature or 1), axis=1)

    def heatmaps(self, images: Mapping[int, Tensor], targets: Tensor) -> Tensor:
        """Where the networks looked for a class (B,): float32 (B, S, S) from 0 to 1, the mean of their maps, in the
        largest of `sizes`; images as for probabilities(), errors as of cxr.models.heatmaps.heatmaps()."""
        side = max(self.sizes)
        each = [heatmaps(member, images[member.hparams.image_size], targets) for member in self.members]
        return torch.stack([interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0] for maps in each]).mean(0)
