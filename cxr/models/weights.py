"""Initial weights, and turning a network for colour images into one for grey ones: the same for all networks."""

import urllib.error
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum

from cxr.errors import UserError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
State = dict[str, Tensor]


class Parts(NamedTuple):
    """A network of torchvision: its title for people, and the names of some layers."""

    title: str
    first: str  # the convolution that takes the image
    norm: str  # the batch normalisation behind it
    head: str  # the fully connected layer that gives the logits


def for_images(
    net: nn.Module,
    parts: Parts,
    weights: str | None,
    imagenet: WeightsEnum,
    fan: str = "fan_out",
    renamed: Callable[[State], State] = dict,
) -> nn.Module:
    """Give a network of torchvision one input channel and weights, in place.

    Args:
        net: as torchvision makes it, for 3 channels and with random weights.
        weights: None to keep these; "imagenet" for those of `imagenet`; or the path of a state dict of this network
            with one or three input channels, or of a checkpoint of cxr.
        fan: how torchvision initialises this network's first convolution (He et al. 2015): fan_in or fan_out.
        renamed: gives the keys of an old state dict today's names.

    Raises:
        UserError: the weights are not available or belong to another network.
    """
    colour = net.get_submodule(parts.first)
    grey = nn.Conv2d(1, colour.out_channels, colour.kernel_size, colour.stride, colour.padding, bias=False)
    nn.init.kaiming_normal_(grey.weight, mode=fan, nonlinearity="relu")
    net.set_submodule(parts.first, grey)
    if weights is not None:
        state = download(imagenet) if weights == "imagenet" else read_state(weights, parts.title)
        state = renamed(state)
        try:
            if state[f"{parts.first}.weight"].shape[1:2] == (3,):
                fold(state, parts)
        except (KeyError, RuntimeError) as error:
            raise UserError(f"model.weights={weights}: not a state dict of {parts.title}") from error
        fill(net, state, [parts.head], parts.title, weights)
    return net


def download(source: WeightsEnum) -> State:
    """A state dict that torchvision publishes."""
    try:
        return source.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:  # RuntimeError: the hash is wrong
        raise UserError(
            f"model.weights=imagenet: the download failed ({type(error).__name__}); fetch {source.url} by hand and "
            "pass model.weights=PATH, or train from scratch with model.weights=null"
        ) from error


def read_state(weights: str, title: str) -> State:
    """The state dict in the file that `model.weights` names: torch's, safetensors', or a checkpoint of ours."""
    path = Path(weights).expanduser()
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"model.weights={weights}: no such file; allowed are null, imagenet or a path") from error
    except Exception as error:  # a damaged or hostile file can make torch raise anything
        raise UserError(f"model.weights={weights}: not a file of weights that torch can read safely") from error
    is_checkpoint = isinstance(state, dict) and "state_dict" in state
    state = state["state_dict"] if is_checkpoint else state
    if not isinstance(state, dict) or not all(isinstance(k, str) for k in state):
        raise UserError(f"model.weights={weights}: not a state dict of {title}")
    if is_checkpoint:
        state = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
    if not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"model.weights={weights}: not a state dict of {title}")
    return dict(state)


def fold(state: State, parts: Parts) -> None:
    """Change a network for normalised colour into one that does the same with grey from 0 to 1, in place.

    The constant of to_grey() goes into the running mean of the batch normalisation behind. This is exact but for the
    outermost pixels, where the padding is now black instead of ImageNet's mean.
    """
    kernel, constant = to_grey(state[f"{parts.first}.weight"], IMAGENET_MEAN, IMAGENET_STD)
    state[f"{parts.first}.weight"] = kernel
    state[f"{parts.norm}.running_mean"] = state[f"{parts.norm}.running_mean"] - constant


def to_grey(
    kernel: Tensor, mean: Sequence[float], std: Sequence[float], zero: float = 0.0, one: float = 1.0
) -> tuple[Tensor, Tensor]:
    """A convolution of normalised colour as one of grey: with equal channels g, and x = (g - zero) / one,
    sum_c w_c * (g - mean_c) / std_c = (sum_c w_c one / std_c) * x + sum_c w_c (zero - mean_c) / std_c.

    Args:
        kernel: (O, 3, H, W).
        mean, std: of the normalisation that the network expects, for each channel.
        zero, one: mean and standard deviation that the grey image is normalised with.

    Returns:
        the kernel (O, 1, H, W), and the constant (O,) to add to its output.
    """
    means, stds = (torch.tensor(values, dtype=kernel.dtype).view(1, 3, 1, 1) for values in (mean, std))
    return (kernel * one / stds).sum(1, keepdim=True), (kernel * (zero - means) / stds).sum((1, 2, 3))


def fill(net: nn.Module, state: State, heads: Sequence[str], title: str, weights: str) -> None:
    """Load a complete state dict; only the classifier (the layers `heads`) may be missing or made for other classes.

    Raises:
        UserError: it belongs to another network.
    """
    ours = net.state_dict()
    free = {key for head in heads for key in (f"{head}.weight", f"{head}.bias")}
    if any(key in state and key in ours and state[key].shape != ours[key].shape for key in free):
        state = {key: value for key, value in state.items() if key not in free}
    try:
        lacking = net.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise UserError(f"model.weights={weights}: shapes differ from those of {title}") from error
    if lacking.unexpected_keys or set(lacking.missing_keys) - free:
        raise UserError(f"model.weights={weights}: not a state dict of {title}")
