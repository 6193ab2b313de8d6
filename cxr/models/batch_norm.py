"""Batch normalisation whose running statistics come to rest, as the weights do at the end of one cycle."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

USUAL = 0.1  # torch's momentum: validation sees the statistics of about the last 10 batches
LOWEST = 0.03  # of about the last 33
STEPS = 8  # what the first statistics, which are no data's, weigh in the end: exp(-8)


def average_longer(net: nn.Module, steps: int) -> None:
    """Let running statistics average over more batches than usual, as far as training is long enough, in place.

    With small batches, those of the last 10 are so noisy that macro F1 on validation images still jumps when the
    learning rate is nearly zero. Layers that a network gives a momentum of its own keep it.

    Args:
        steps: of the whole training.
    """
    momentum = min(USUAL, max(LOWEST, STEPS / steps))
    for layer in net.modules():
        if isinstance(layer, _BatchNorm) and layer.momentum == USUAL:
            layer.momentum = momentum
