"""torchvision's ResNet-18 for films of one channel."""

import urllib.error
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, ResNet18_Weights
from torchvision.models import resnet18 as torchvision_resnet18

from cxr.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resnet18(n_classes: int, image_size: int, weights: str | None) -> ResNet:
    """ResNet-18 (He et al. 2016) with one input channel.

    Args:
        n_classes: number of logits.
        image_size: side of the films in pixels; any will do, the network ends in a global average.
        weights: None to start from scratch; "imagenet" for torchvision's IMAGENET1K_V1; or the path of a state dict
            of this network, with one or three input channels.

    Raises:
        UserError: the weights cannot be had or are not of this network.
    """
    net = torchvision_resnet18(num_classes=n_classes)
    net.conv1 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
    # torchvision initialises its own first convolution so; the one above has torch's default.
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")
    if weights is not None:
        load(net, read_weights(weights), weights)
    return net


def read_weights(weights: str) -> dict[str, Tensor]:
    """The state dict that `model.weights` names."""
    if weights == "imagenet":
        source = ResNet18_Weights.IMAGENET1K_V1
        try:
            return source.get_state_dict(progress=False, check_hash=True)
        except (urllib.error.URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash is wrong
            raise UserError(
                f"model.weights=imagenet: the download failed ({type(error).__name__}); fetch {source.url} by hand and "
                "pass model.weights=PATH, or train from scratch with model.weights=null"
            ) from error
    path = Path(weights).expanduser()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"model.weights={weights}: no such file; allowed are null, imagenet or a path") from error
    except Exception as error:  # a damaged or hostile file can make torch raise anything
        raise UserError(f"model.weights={weights}: not a file of weights that torch can read safely") from error
    own = isinstance(state, dict) and "state_dict" in state  # one of our own checkpoints
    state = state["state_dict"] if own else state
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise UserError(f"model.weights={weights}: not a state dict of ResNet-18")
    if own:
        state = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"model.weights={weights}: not a state dict of ResNet-18")
    return state


def load(net: ResNet, state: dict[str, Tensor], weights: str) -> None:
    """Load a state dict; a classifier for other classes is left out, three input channels become one."""
    state = dict(state)
    try:
        if state.get("conv1.weight", torch.empty(0)).shape[1:2] == (3,):
            fold_first_convolution(state)
        if "fc.weight" in state and state["fc.weight"].shape != net.fc.weight.shape:
            del state["fc.weight"], state["fc.bias"]
        lacking = net.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError) as error:
        raise UserError(f"model.weights={weights}: shapes differ from ResNet-18's") from error
    if lacking.unexpected_keys or set(lacking.missing_keys) - {"fc.weight", "fc.bias"}:
        raise UserError(f"model.weights={weights}: not a state dict of ResNet-18")


def fold_first_convolution(state: dict[str, Tensor]) -> None:
    """Change a network for normalised colour into one that does the same with gray from 0 to 1, in place.

    With equal channels g, ImageNet's normalisation and the convolution are
    sum_c w_c * (g - mean_c) / std_c = (sum_c w_c / std_c) * g - sum_c w_c mean_c / std_c: one kernel and one constant a
    channel, which the running mean of the batch normalisation behind takes up. Exact but for the outermost pixels,
    where the padding now stands for black and not for ImageNet's mean.
    """
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    kernel = state["conv1.weight"]
    state["conv1.weight"] = (kernel / std).sum(1, keepdim=True)
    state["bn1.running_mean"] = state["bn1.running_mean"] + (kernel * mean / std).sum((1, 2, 3))
