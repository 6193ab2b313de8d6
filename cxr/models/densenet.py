"""torchvision's DenseNet-121 (Huang et al. 2017), the network of CheXNet (Rajpurkar et al. 2017), for grey images."""

import re

from torchvision import models
from torchvision.models import DenseNet

from cxr.errors import UserError
from cxr.models.weights import Parts, State, for_images

PARTS = Parts("DenseNet-121", first="features.conv0", norm="features.norm0", head="classifier")
SMALLEST = 29  # pixels; of less, nothing is left after the poolings


def densenet121(n_classes: int, image_size: int, weights: str | None) -> DenseNet:
    """DenseNet-121 with one input channel.

    Args:
        n_classes: number of logits.
        image_size: side of the images in pixels, from 29.
        weights: as for cxr.models.resnet.resnet18().

    Raises:
        UserError: the images are too small, or the weights are not available or belong to another network.
    """
    if image_size < SMALLEST:
        raise UserError(f"data.image_size={image_size}: too small for DenseNet-121, which needs {SMALLEST} pixels")
    net = models.densenet121(num_classes=n_classes)
    imagenet = models.DenseNet121_Weights.IMAGENET1K_V1
    return for_images(net, PARTS, weights, imagenet, fan="fan_in", renamed=renamed)


def renamed(state: State) -> State:
    """A state dict with today's keys: published ones have denselayer1.norm.1.weight for denselayer1.norm1.weight."""
    return {re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)", r"\1\2", key): value for key, value in state.items()}
