"""The network's passes as CUDA graphs: a step starts two graphs instead of hundreds of kernels, one after the other."""

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from cxr.errors import UserError

log = logging.getLogger(__name__)


class ReplayGraphs(Callback):
    """Records the forward and backward passes of the network once, when training begins, and lets training steps replay
    them. Batches of another size, such as the last one of an epoch, and validation are computed without them.

    On a fast GPU, a small network or batch waits for the host, which needs longer to start a kernel than the GPU needs
    to compute it (cxr/benchmarks/gpu.md). The kernels are the same, and so is every bit of the result, which
    `python -m cxr.bench --gpu` checks. torch.compile(mode="reduce-overhead") records graphs too, but of kernels of its
    own, after it has compiled them.

    Args:
        setting: the option `cuda_graphs`: auto (where possible), true (or an error), false.
        batch: images of a training batch.
        size: side of the images in pixels.
        compiled: whether torch.compile makes its own kernels for the network.
    """

    def __init__(self, setting: bool | str, batch: int, size: int, compiled: bool) -> None:
        self.setting, self.shape, self.compiled = setting, (batch, 1, size, size), compiled

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.setting is False:
            return
        if why := self.obstacle(trainer):
            if self.setting is True:
                raise UserError(f"cuda_graphs=true: {why}; use auto")
            return
        try:
            module.graphed = self.shape, record(trainer, module.net, self.shape)
        except RuntimeError as error:  # the network does what no graph can hold, or there is no memory for it
            why = str(error).splitlines()[0]
            if self.setting is True:
                raise UserError(f"cuda_graphs=true: this network cannot be recorded ({why}); use auto") from error
            log.warning("no CUDA graphs: this network cannot be recorded (%s)", why)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        module.graphed = None  # and with it the memory

    def obstacle(self, trainer: pl.Trainer) -> str:
        """What forbids recording, or ""."""
        if trainer.strategy.root_device.type != "cuda":
            return "no NVIDIA GPU was found"
        if trainer.world_size > 1:
            return "CUDA graphs work on one device only"
        if trainer.datamodule.resident is None:  # a thread would pin batches for their way to the GPU meanwhile
            return "the images must be on the GPU (data.resident)"
        if self.compiled:
            return "CUDA graphs do not work with compile=true"
        if trainer.accumulate_grad_batches > 1:  # replaying would write over the gradients that are being added up
            return "CUDA graphs do not work with trainer.accumulate_grad_batches"
        return ""


def record(trainer: pl.Trainer, net: torch.nn.Module, shape: tuple[int, ...]) -> Any:
    """A function that does what `net` does to images (B, 1, S, S) of this shape, in training, by replaying graphs."""
    device = trainer.strategy.root_device
    images = torch.rand(shape, device=device).contiguous(memory_format=torch.channels_last)
    kept = {name: buffer.clone() for name, buffer in net.named_buffers()}
    # Gradients are added up on the stream of the recording, which costs nothing that can be measured.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    try:
        with trainer.precision_plugin.train_step_context():
            torch.cuda.make_graphed_callables(net, (images,), allow_unused_input=True)
        return net.forward
    finally:
        vars(net).pop("forward", None)  # torch puts the replay there, whatever the size of a batch
        for name, buffer in net.named_buffers():  # warming up went into the running means of batch normalisation
            buffer.copy_(kept[name])
