"""Export networks to a file, which appears only if it predicts as cxr.predict does."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch

import cxr
from cxr.errors import UserError, counted, with_type
from cxr.files.run_folder import METRICS
from cxr.files.writing import read_json, replacing
from cxr.jobs.export_check import check_export, images_to_compare
from cxr.jobs.int8 import in_int8
from cxr.jobs.members import Networks, Unknown, find_run, load_networks, thresholds
from cxr.models.exported import OPSET, Graph, export_graph, open_exported
from cxr.models.precision import FULL
from cxr.options.checkpoint_paths import paths_in
from cxr.reporting.hospitals_in_words import apart_lines, score_of

PROMISE = ("threshold", "sensitivity_asked", "confidence", "promised")  # of a class that is screened for


def export(ckpt: str, out: Path, int8: bool) -> list[str]:
    """Write the networks of the option `ckpt` to a new file.

    Args:
        out: ends with .onnx or .pt2.
        int8: compute in 8 bits; .onnx only.

    Returns:
        Lines for the user.

    Raises:
        UserError: a checkpoint cannot be used; a network cannot be exported; the exported file does not predict as
            cxr.predict does; or it cannot be written. Then there is no file.
    """
    networks = load_networks(paths_in(ckpt))
    model, lines = networks.model, list(networks.remarks)
    if model.note:
        lines.append(f"this network was trained on {model.note}")
    trained_in = sorted({member.precision for member in model.members})
    for member in model.members:
        member.precision = FULL
    if trained_in != [FULL]:
        lines.append(f"trained in {', '.join(trained_in)}, in which cxr.predict computes; exported in fp32")
    try:
        screening = {name: {key: of[key] for key in PROMISE} for name, of in thresholds(networks)[0].items()}
    except Unknown as why:
        screening = {}
        lines.append(f"without screening thresholds: {why}")
    cautions = [*filter(None, [model.note]), *hospital_cautions(networks)]
    lines += cautions[bool(model.note) :]
    about = describe(networks, screening, trained_in, cautions) | ({"opset": OPSET} if out.suffix == ".onnx" else {})
    images, which = images_to_compare(networks)
    with naming_output(out), replacing(out, "wb") as file:
        content = export_graph(Graph(model), out.suffix, about)
        write_all(file, content)
        exported = open_exported(Path(file.name), out.suffix)
        far = check_export(exported, model, images)
        lines.append(
            f"compared with cxr.predict in fp32 on {counted(len(images), 'image')} ({which}): probabilities differ by "
            f"at most {far[0]:.1g} for images resized to the network's size, {far[1]:.1g} for images of their own size"
        )
        if int8:
            content, compared = in_int8(content, about, exported, networks)
            write_all(file, content)
            lines.append(compared)
    lines.append(f"{counted(len(model.members), 'network')} with {len(model.classes)} classes written to {out}")
    return lines


def write_all(file: IO[bytes], content: bytes) -> None:
    """Make this the whole content of a file, for others who open it now."""
    file.seek(0)
    file.truncate()
    file.write(content)
    file.flush()


@contextmanager
def naming_output(out: Path) -> Iterator[None]:
    """A block whose errors, but for those of cxr, say that `out` cannot be written."""
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"out={out}: cannot be written ({error.strerror})") from error
    except Exception as error:  # torch, onnxscript and onnxruntime raise what they like where they lack an operation
        raise UserError(f"out={out}: this network cannot be exported to {out.suffix} ({with_type(error)})") from error


def hospital_cautions(networks: Networks) -> list[str]:
    """What the run folders say of classes that share no hospital, each sentence once."""
    lines = {}
    for path in networks.checkpoints:
        if run := find_run(path, networks.model.classes):
            metrics = read_json(run / METRICS)
            lines |= dict.fromkeys(apart_lines(metrics["hospitals"], score=score_of(metrics)))
    return list(lines)


def describe(
    networks: Networks, screening: Mapping[str, Any], trained_in: Sequence[str], cautions: Sequence[str]
) -> dict[str, Any]:
    """The metadata of the file."""
    return {
        "caution": "not a medical device: never use it to diagnose a person",
        "classes": list(networks.model.classes),
        "input": "float32 (batch, 1, height, width): grey values from 0 (black) to 255",
        "output": "float32 (batch, classes): calibrated probabilities",
        "screening": screening,
        "image_sizes": list(networks.model.sizes),
        "precision": "fp32",
        "trained_in": list(trained_in),
        "checkpoints_sha256": [hashlib.sha256(path.read_bytes()).hexdigest() for path in networks.checkpoints],
        "note": "; ".join(cautions),
        "cxr_version": cxr.__version__,
        "torch_version": torch.__version__,
    }
