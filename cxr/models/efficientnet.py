"""torchvision's EfficientNet-B0 (Tan & Le 2019) for images of one channel."""

from torchvision import models
from torchvision.models import EfficientNet

from cxr.models.weights import Parts, for_images

PARTS = Parts("EfficientNet-B0", first="features.0.0", norm="features.0.1", head="classifier.1")


def efficientnet_b0(n_classes: int, image_size: int, weights: str | None) -> EfficientNet:
    """EfficientNet-B0 with one input channel; the arguments, and what is raised, are those of
    cxr.models.resnet.resnet18()."""
    net = models.efficientnet_b0(num_classes=n_classes)
    return for_images(net, PARTS, weights, models.EfficientNet_B0_Weights.IMAGENET1K_V1)
