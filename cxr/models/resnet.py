"""torchvision's ResNets (He et al. 2016) for images of one channel."""

from torchvision import models
from torchvision.models import ResNet

from cxr.models.weights import Parts, for_images


def resnet18(n_classes: int, image_size: int, weights: str | None) -> ResNet:
    """ResNet-18 with one input channel.

    Args:
        n_classes: number of logits.
        image_size: side of the images in pixels; any will do, the network ends in a global average.
        weights: None to start from scratch; "imagenet" for torchvision's IMAGENET1K_V1; or the path of a state dict
            of this network, with one or three input channels, or of a checkpoint of ours.

    Raises:
        UserError: the weights are not available or belong to another network.
    """
    net = models.resnet18(num_classes=n_classes)
    return for_images(net, named("ResNet-18"), weights, models.ResNet18_Weights.IMAGENET1K_V1)


def resnet34(n_classes: int, image_size: int, weights: str | None) -> ResNet:
    """ResNet-34; everything else as for resnet18()."""
    net = models.resnet34(num_classes=n_classes)
    return for_images(net, named("ResNet-34"), weights, models.ResNet34_Weights.IMAGENET1K_V1)


def resnet50(n_classes: int, image_size: int, weights: str | None) -> ResNet:
    """ResNet-50; everything else as for resnet18()."""
    net = models.resnet50(num_classes=n_classes)
    return for_images(net, named("ResNet-50"), weights, models.ResNet50_Weights.IMAGENET1K_V1)


def named(title: str) -> Parts:
    return Parts(title, first="conv1", norm="bn1", head="fc")
