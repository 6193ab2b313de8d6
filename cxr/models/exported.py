"""A network, or an ensemble, as one file for others: ONNX, or torch.export's .pt2."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxr.evaluation.averaging import LEAST
from cxr.models.ensemble import Ensemble

OPSET = 18  # of ONNX: the first whose Resize averages where it shrinks, as Pillow does
INPUT, OUTPUT = "images", "probabilities"
METADATA = "metadata.json"  # within a .pt2
EXAMPLE = (2, 1, 300, 200)  # a shape for tracing; the file takes any other


class Graph(nn.Module):
    """All that cxr.predict computes from grey pixels, in fp32.

    Images, float32 (B, 1, H, W), grey values from 0 to 255, become calibrated probabilities, float32 (B, C). A uint8
    input would shut out what is no byte, while every runtime casts bytes to floats.
    """

    def __init__(self, model: Ensemble) -> None:
        super().__init__()
        self.nets = nn.ModuleList(member.net for member in model.members)
        self.sizes = [member.hparams.image_size for member in model.members]
        self.temperatures = [member.temperature.item() for member in model.members]
        self.temperature = model.temperature or 1.0  # of the mean, see cxr.evaluation.averaging.log_mean()
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        squares = {size: to_square(images, size) / 255 for size in dict.fromkeys(self.sizes)}
        each = [
            (net(squares[size]) / temperature).softmax(1)
            for net, size, temperature in zip(self.nets, self.sizes, self.temperatures, strict=True)
        ]
        if len(each) == 1:
            return each[0]
        mean = torch.stack(each).mean(0).clamp(min=LEAST)
        return (mean.log() / self.temperature).softmax(1)


def to_square(images: Tensor, size: int) -> Tensor:
    """Grey values (B, 1, H, W), from 0 to 255, stretched to (B, 1, size, size) as cxr.data.decode does it with Pillow:
    columns first, then rows, each rounded to whole grey values. Only where a value lies in the middle of two may they
    differ, by 1."""
    for shape in ((images.shape[2], size), (size, size)):
        images = (F.interpolate(images, shape, mode="bilinear", antialias=True) + 0.5).floor()
    return images


def export_graph(graph: Graph, ending: str, metadata: Mapping[str, Any]) -> bytes:
    """The content of an exported file.

    Args:
        ending: .onnx or .pt2.
        metadata: goes into the file: in ONNX, each entry that is no text as JSON; else all as JSON in METADATA.
    """
    sides = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    with quietly():
        program = torch.export.export(graph, (torch.zeros(EXAMPLE),), dynamic_shapes=(sides,))
        for module in program.graph_module.modules():
            for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
                node.meta.pop("stack_trace", None)  # the paths of this machine are nobody else's business
        if ending == ".pt2":
            file = io.BytesIO()
            torch.export.save(program, file, extra_files={METADATA: json.dumps(metadata)})
            return file.getvalue()
        names = {"input_names": [INPUT], "output_names": [OUTPUT]}
        converted = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False, **names).model_proto
    return with_metadata(converted.SerializeToString(), metadata)


def with_metadata(content: bytes, metadata: Mapping[str, Any]) -> bytes:
    """The content of an ONNX file with this metadata instead of its own."""
    import onnx

    model = onnx.load_from_string(content)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    onnx.helper.set_model_props(model, texts)
    return model.SerializeToString()


@contextmanager
def quietly() -> Iterator[None]:
    """A block that prints nothing: torch and onnxscript print dozens of lines about their own work, in many ways."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


class Exported(NamedTuple):
    """An exported file: its class names, and what computes float32 (B, C) of float32 (B, 1, H, W), see Graph."""

    classes: tuple[str, ...]
    probabilities: Callable[[np.ndarray], np.ndarray]


def open_exported(path: Path, ending: str) -> Exported:
    """Open a file of export_graph() for the CPU, with onnxruntime or torch, whatever its name ends with."""
    if ending == ".onnx":
        return from_content(path.read_bytes())
    extra = {METADATA: ""}
    with quietly(), path.open("rb") as file:
        module = torch.export.load(file, extra_files=extra).module()
    classes = tuple(json.loads(extra[METADATA])["classes"])
    return Exported(classes, lambda images: module(torch.from_numpy(images)).numpy())


def from_content(content: bytes, threads: int = 0) -> Exported:
    """Open the content of an ONNX file with onnxruntime.

    Args:
        threads: 0 lets onnxruntime choose.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    classes = tuple(json.loads(session.get_modelmeta().custom_metadata_map.get("classes", "[]")))
    return Exported(classes, lambda images: session.run([OUTPUT], {INPUT: images})[0])
