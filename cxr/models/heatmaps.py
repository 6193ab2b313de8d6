"""Where a network looked: a map for each image, by gradients (captum, the extra `explain`).

The map is HiResCAM (Draelos & Carin 2020): gradient times activation of a layer, summed over channels, negative sums
set to 0. At the last layer of a network that ends in a global average, this is Grad-CAM (Selvaraju et al. 2017); at
others, Grad-CAM averages the gradient over the image, and can mark places that the network did not use. LayerCAM (Jiang
et al. 2021) drops negative products before it sums: its maps depend less on the weights, and fail the sanity check of
cxr.evaluation.heatmap_tests more often.

Coarse maps, such as the 2 x 2 cells of ResNet-18's last layer for images of 64 pixels, fail the deletion test.
"""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from math import isqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from cxr.errors import UserError
from cxr.models.classifier import Classifier

NEEDED = "heatmaps need captum: pip install 'cxr[explain]'"
FEWEST = 14  # cells across, if a layer has as many; coarser maps mark less well what the network uses
EXTRA_TOKENS = 8  # of a transformer, before those of its patches: class, distillation, registers


class Layer(NamedTuple):
    """A layer whose output is a grid of `side` x `side` cells, each for a part of the image."""

    name: str
    module: nn.Module
    side: int


def is_installed() -> bool:
    """Whether the extra is there."""
    return find_spec("captum") is not None


def heatmaps(model: Classifier, images: Tensor, targets: Tensor, layer: Layer | None = None) -> Tensor:
    """Where the network looked for a class: float32 (B, S, S), 0 to 1 in each map that is not 0 everywhere.

    Computed in fp32, whatever the precision of the training.

    Args:
        model: in evaluation mode.
        images: float (B, 1, S, S) from 0 to 1, on the network's device.
        targets: int64 (B,), a class for each image.
        layer: that has the maps; None: see find_layer().

    Raises:
        UserError: captum is not installed, or see find_layer().
    """
    if not is_installed():
        raise UserError(NEEDED)
    from captum.attr import LayerGradientXActivation

    layer = layer or find_layer(model)
    method = LayerGradientXActivation(model.net, layer.module)
    with torch.inference_mode(False), torch.enable_grad():
        images = images.clone(memory_format=torch.channels_last).detach().requires_grad_()
        parts = method.attribute(images, targets)
    maps = as_grid(parts.detach().float(), images.shape[-1]).sum(1, keepdim=True).relu()
    return scaled(nn.functional.interpolate(maps, images.shape[-2:], mode="bilinear")[:, 0])


def scaled(maps: Tensor) -> Tensor:
    """Maps (B, S, S), not negative, divided by their maxima; a map of zeros stays as it is."""
    return maps / maps.amax((1, 2), keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


def find_layer(model: Classifier) -> Layer:
    """The last layer of a network that has a grid of at least FEWEST cells across, or else the finest grid. The class
    must depend on the grid: on the patches that a transformer's last block puts out, it does not if a class token
    decides.

    Raises:
        UserError: no layer has a grid.
    """
    size = model.hparams.image_size
    # Any images will do: what counts is which outputs are grids, and on which of them the logits depend.
    images = torch.rand(2, 1, size, size, generator=torch.Generator().manual_seed(0)).to(model.device).requires_grad_()
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.pop(module, None)  # so that the order is that of the last calls
        outputs[module] = output

    hooks = [module.register_forward_hook(keep) for module in model.net.modules()]
    try:
        with torch.inference_mode(False), torch.enable_grad():
            logits = model.net(images)
            layers = [module for module in last_first(model.net, outputs, size) if outputs[module].requires_grad]
            highest, grids = logits.float().amax(1).sum(), [outputs[layer] for layer in layers]
            gradients = torch.autograd.grad(highest, grids, allow_unused=True) if grids else ()
    finally:
        for hook in hooks:
            hook.remove()
    names = {module: name for name, module in model.net.named_modules()}
    used = [(layer, as_grid(gradient, size)) for layer, gradient in zip(layers, gradients, strict=True)]
    usable = [Layer(names[layer], layer, grid.shape[-1]) for layer, grid in used if grid is not None and grid.any()]
    if not usable:
        raise UserError(
            "this network has no heatmaps: none of its layers puts out a grid of cells, (B, C, n, n), (B, n, n, C) or "
            "(B, tokens, C), on which the class depends"
        )
    return next((layer for layer in usable if layer.side >= FEWEST), max(usable, key=lambda layer: layer.side))


def last_first(module: nn.Module, outputs: Mapping[nn.Module, Tensor], size: int) -> Iterator[nn.Module]:
    """The module and its parts that put out grids, the last one first. Only parts of sequences and of what puts out no
    grid itself: within a block of a network, outputs need not be what they seem (attention has grids of its own)."""
    is_grid = module in outputs and as_grid(outputs[module], size) is not None
    if is_grid:
        yield module
    if not is_grid or isinstance(module, nn.Sequential):
        order = {called: number for number, called in enumerate(outputs)}
        for part in sorted(parts_called(module, outputs), key=order.__getitem__, reverse=True):
            yield from last_first(part, outputs, size)


def parts_called(module: nn.Module, outputs: Mapping[nn.Module, Tensor]) -> Iterator[nn.Module]:
    """The parts of a module that were called; of lists of modules, which are never called, their elements."""
    for part in module.children():
        if part in outputs:
            yield part
        else:
            yield from parts_called(part, outputs)


def as_grid(output: Tensor | None, size: int) -> Tensor | None:
    """A layer's output (B, C, n, n), (B, n, n, C) or (B, tokens, C) for images of `size` pixels, as (B, C, n, n) with n
    from 2; None if it is something else."""
    if not isinstance(output, Tensor):
        return None
    if output.ndim == 4:
        _, first, second, third = output.shape
        if second == third > 1:
            return output
        return output.movedim(3, 1) if first == second > 1 else None
    if output.ndim == 3:
        tokens = output.shape[1]
        for side in range(min(isqrt(tokens), size), 1, -1):
            if size % side == 0 and tokens - side**2 <= EXTRA_TOKENS:
                return output[:, tokens - side**2 :].movedim(2, 1).unflatten(2, (side, side))
    return None
