"""One or several networks that predict together."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import zip_longest

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn.functional import interpolate

from cxr.evaluation.averaging import log_mean
from cxr.evaluation.familiarity import Familiar, mean_unfamiliar
from cxr.models.classifier import Classifier
from cxr.models.features import joined, kept_features, thumbnails
from cxr.models.heatmaps import Layer, find_layer, heatmaps


class Ensemble:
    """Networks of the same classes, each at the image size and in the precision of its training.

    Args:
        members: the networks, all on one device.
        temperature: calibrates the mean of their probabilities, see log_mean(); None: the mean stays as it is.
        familiar: what each network is familiar with; empty where that is not known of all.

    Attributes:
        classes, note, device: as those of a Classifier.
        sizes: each image size that a network needs, once.
    """

    def __init__(
        self, members: Sequence[Classifier], temperature: float | None = None, familiar: Sequence[Familiar] = ()
    ) -> None:
        self.members, self.temperature, self.familiar = members, temperature, familiar
        self.classes, self.device = members[0].classes, members[0].device
        self.note = "; ".join(dict.fromkeys(member.note for member in members if member.note))
        self.sizes = tuple(dict.fromkeys(member.hparams.image_size for member in members))

    @property
    def is_calibrated(self) -> bool:
        """Whether the probabilities were calibrated on validation images."""
        if len(self.members) > 1:
            return self.temperature is not None
        return float(self.members[0].temperature) != 1  # as it is until it is fitted

    @cached_property
    def layers(self) -> list[Layer]:
        """The layer of each network that has its heatmaps. Raises UserError as find_layer() does."""
        return [find_layer(member) for member in self.members]

    def probabilities(self, images: Mapping[int, Tensor]) -> np.ndarray:
        """Calibrated probabilities, float32 (B, C), of the same images in each of `sizes`: (B, 1, S, S) from 0 to 1."""
        return self.judge(images)[0]

    @torch.inference_mode()
    def judge(self, images: Mapping[int, Tensor]) -> tuple[np.ndarray, np.ndarray | None]:
        """The probabilities() of images, and how unfamiliar they are: float (B,), the mean over the networks of
        Familiar.unfamiliar(); None where that is not known."""
        each, unfamiliar = [], []
        for member, familiar in zip_longest(self.members, self.familiar):
            of_size = images[member.hparams.image_size]
            with kept_features(member.net) as features:
                each.append(member.probabilities(of_size).cpu().numpy())
            if familiar:
                vectors = joined(features, len(of_size)).cpu().numpy(), thumbnails(of_size).cpu().numpy()
                unfamiliar.append(familiar.unfamiliar(*vectors))
        together = each[0] if len(each) == 1 else softmax(log_mean(each) / np.float32(self.temperature or 1), axis=1)
        return together, mean_unfamiliar(unfamiliar) if unfamiliar else None

    def heatmaps(self, images: Mapping[int, Tensor], targets: Tensor) -> Tensor:
        """Where the networks looked for a class (B,): float32 (B, S, S) from 0 to 1, the mean of their maps, in the
        largest of `sizes`; images as for probabilities(), errors as of cxr.models.heatmaps.heatmaps()."""
        side = max(self.sizes)
        each = [
            heatmaps(member, images[member.hparams.image_size], targets, layer)
            for member, layer in zip(self.members, self.layers, strict=True)
        ]
        return torch.stack([interpolate(maps[:, None], (side, side), mode="bilinear")[:, 0] for maps in each]).mean(0)
