"""Any network of timm (PyTorch Image Models) for images of one channel."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cxr.errors import UserError, with_type
from cxr.models.weights import State, fill, read_state, to_grey
from cxr.options.timm_names import check_timm


class TimmNetwork(nn.Module):
    """A network of timm behind its normalisation of images: (image - zero) / one.

    From scratch these are 0 and 1; pretrained, the mean over the channels of what the network was trained with.
    Images (B, 1, S, S), float from 0 to 1, become logits (B, n_classes).
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("zero", torch.zeros(()))
        self.register_buffer("one", torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return self.net((images - self.zero) / self.one)


def timm_network(n_classes: int, image_size: int, name: str, weights: str | None) -> TimmNetwork:
    """A network of timm with one input channel, initialised as timm does it.

    Colour weights become grey ones by to_grey(). Except for a padded convolution's outermost pixels, this is exact if
    the channels' means are equal, or if the first convolution has a bias or is followed by a batch normalisation: these
    absorb the constant. In other networks, the differences between the channels' means are lost, and in networks that
    standardise their kernels, the channels' different scales are lost.

    Args:
        n_classes: number of logits.
        image_size: side of the images in pixels; networks of a fixed size are made for it.
        name: one of timm.list_models(), with a tag (convnext_tiny.in12k) for other weights than timm's first choice.
        weights: None to start from scratch; "imagenet" for those that timm has for this name, whatever they were
            trained on; or the path of a state dict of this network (.safetensors too), with one or three input
            channels, or of a checkpoint of ours.

    Raises:
        UserError: timm is not installed or has no such network, it does not take images of this size, or the weights
            are not available or belong to another network.
    """
    check_timm({"name": name})
    import timm

    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError as error:  # the tag
        raise UserError(f"model.name={name}: {with_type(error)}") from error
    size = {"img_size": image_size} if config and config.fixed_input_size else {}
    make = partial(timm.create_model, name, num_classes=n_classes, **size)
    net = TimmNetwork(made_for(make, name, n_classes, image_size))
    if weights == "imagenet":
        try:
            state = make(in_chans=3, pretrained=True).state_dict()
        except Exception as error:  # hub and timm raise what they like
            raise UserError(
                f"model.weights=imagenet: timm could not load its weights of {name} ({with_type(error)}); fetch them "
                "by hand and pass model.weights=PATH, or train from scratch with model.weights=null"
            ) from error
        load(net, state, name, weights, image_size)
    elif weights is not None:
        load(net, read_state(weights, name), name, weights, image_size)
    return net


def made_for(make: Callable[..., nn.Module], name: str, n_classes: int, image_size: int) -> nn.Module:
    """A network of timm with one input channel, tried out on an image.

    Raises:
        UserError: it does not work with images of this size.
    """
    try:
        net = make(in_chans=1).eval()
        with torch.no_grad():
            logits = net(torch.zeros(1, 1, image_size, image_size))
    except Exception as error:  # each of its hundreds of networks raises another error for a size that it does not take
        raise UserError(f"model.name={name}, data.image_size={image_size}: {with_type(error)}") from error
    if not isinstance(logits, Tensor) or logits.shape != (1, n_classes):
        raise UserError(f"model.name={name}: does not give one number per class, so it cannot be trained here")
    return net.train()


def load(net: TimmNetwork, state: State, name: str, weights: str, image_size: int) -> None:
    """Load a state dict: one of a TimmNetwork, or one of timm's, whose three input channels become one."""
    config: dict[str, Any] = net.net.pretrained_cfg
    heads = config.get("classifier") or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    if "zero" in state:  # a checkpoint of ours
        fill(net, state, [f"net.{head}" for head in heads], name, weights)
        return
    ours = net.net.state_dict()
    for key in [k for k, v in state.items() if k in ours and v.ndim == 4 and v.shape != ours[k].shape]:
        if state[key].shape[1] == 3 and ours[key].shape == state[key][:, :1].shape:
            fold(net, state, key.removesuffix(".weight"), image_size)
    fill(net.net, state, heads, name, weights)


def fold(net: TimmNetwork, state: State, first: str, image_size: int) -> None:
    """Make a convolution of normalised colour, the layer `first`, one of grey; see timm_network()."""
    mean, std = net.net.pretrained_cfg["mean"], net.net.pretrained_cfg["std"]
    zero, one = sum(mean) / len(mean), sum(std) / len(std)
    kernel, constant = to_grey(state[f"{first}.weight"], mean, std, zero, one)
    state[f"{first}.weight"] = kernel
    norm = norm_behind(net.net, first, image_size)
    if f"{first}.bias" in state:
        state[f"{first}.bias"] = state[f"{first}.bias"] + constant
    elif norm:
        state[f"{norm}.running_mean"] = state[f"{norm}.running_mean"] - constant
    net.zero.fill_(zero)
    net.one.fill_(one)


def norm_behind(net: nn.Module, layer: str, image_size: int) -> str | None:
    """The name of the batch normalisation that takes the output of a layer, if one does."""
    gave: list[Tensor] = []
    names: list[str] = []

    def take(name: str, images: Tensor) -> None:
        if gave and images is gave[0]:
            names.append(name)

    hooks = [net.get_submodule(layer).register_forward_hook(lambda _module, _images, out: gave.append(out))]
    for name, module in net.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(lambda _module, images, name=name: take(name, images[0])))
    net.eval()
    with torch.no_grad():
        net(torch.zeros(1, 1, image_size, image_size))
    net.train()
    for hook in hooks:
        hook.remove()
    return names[0] if len(names) == 1 else None
