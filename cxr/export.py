"""python -m cxr.export: write one or several trained networks as one file that runs without cxr."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

from cxr.errors import UserError, printable
from cxr.jobs.exit_codes import answering
from cxr.options.command_line import read_options

# The endings of `out`, and the packages that each needs, which the extra `onnx` installs.
PACKAGES = {".onnx": ("onnx", "onnxruntime", "onnxscript"), ".pt2": ()}


def main() -> None:
    """Exit codes: 0 written, 2 wrong options, or the file does not predict as cxr does, 128 + N."""
    with answering():
        export(read_options(sys.argv[1:], "export"))


def export(options: dict[str, Any]) -> None:
    """Write the networks of `ckpt` to `out`, once the file is known to predict as cxr.predict does."""
    out = Path(options["out"]).expanduser()
    check_ending(out, options["int8"])
    from cxr.jobs import exporting  # torch: not before it is needed

    for line in exporting.export(options["ckpt"], out, options["int8"]):
        print(f"cxr: {printable(line)}", file=sys.stderr)


def check_ending(out: Path, int8: bool) -> None:
    """Raise UserError for a kind of file that cxr does not write, or one that needs a package that is missing."""
    if out.suffix not in PACKAGES:
        raise UserError(f"out={out}: must end with {' or '.join(PACKAGES)}")
    if int8 and out.suffix != ".onnx":
        raise UserError(f"int8=true out={out}: only files that end with .onnx compute in 8 bits")
    if missing := [name for name in PACKAGES[out.suffix] if importlib.util.find_spec(name) is None]:
        raise UserError(f"out={out}: this needs {' and '.join(missing)}: pip install 'cxr[onnx]'")


if __name__ == "__main__":
    main()
