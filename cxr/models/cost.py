"""What a network costs: its parameters, and its arithmetic as torch counts it."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def cost(net: nn.Module, image_size: int) -> dict[str, int]:
    """The number of parameters of a network, and the FLOPs of its forward pass for one image. Its weights, and torch's
    random numbers, stay unchanged."""
    image = torch.zeros(1, 1, image_size, image_size, device=next(net.parameters()).device)
    learnt = [p for p in net.parameters() if p.requires_grad]
    was_training = net.training
    net.eval()
    try:
        for parameter in learnt:  # or torch's counter looks for gradients of those that a layer takes as its input
            parameter.requires_grad_(False)
        with torch.no_grad():
            flops = count_flops(lambda: net(image))
    finally:
        for parameter in learnt:
            parameter.requires_grad_(True)
        net.train(was_training)
    return {"parameters": sum(p.numel() for p in net.parameters()), "flops": flops}


def count_flops(work: Callable[[], object]) -> int:
    """Floating-point operations of the convolutions and matrix products in some work, 2 per multiply-add; all else,
    such as normalisation and poolings, counts as nothing. What is compiled cannot be counted."""
    # Of attention, torch counts the plain form only on every device.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()
