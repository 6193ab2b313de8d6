"""An exported ONNX file whose convolutions and matrix products compute in 8 bits."""

import tempfile
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path

import numpy as np

from cxr.models.exported import INPUT, quietly

OPERATIONS = ("Conv", "Gemm", "MatMul", "Add", "Relu", "MaxPool")


def quantize(content: bytes, images: np.ndarray) -> bytes:
    """The same file in 8 bits, by onnxruntime's static quantization; weights have a scale for each channel.

    What stands before the first convolution, such as the resizing, stays as it is.

    Args:
        images: float32 (N, 1, H, W), from 0 to 255; the ranges of all activations come from them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with quietly(), tempfile.TemporaryDirectory(prefix="cxr-export-") as folder:
        whole, prepared, small = (Path(folder, f"{name}.onnx") for name in ("whole", "prepared", "small"))
        whole.write_bytes(content)
        quant_pre_process(whole, prepared, skip_symbolic_shape=True)
        before = takewhile(lambda node: node.op_type != "Conv", onnx.load(prepared).graph.node)
        quantize_static(
            prepared,
            small,
            Images(images),
            op_types_to_quantize=list(OPERATIONS),
            nodes_to_exclude=[node.name for node in before],
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


class Images:
    """What onnxruntime asks for images, one by one."""

    def __init__(self, images: Iterable[np.ndarray]) -> None:
        self.left = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self.left, None)
        return None if image is None else {INPUT: image[None]}
