"""gpu.md: what cxr.benchmarks.gpu measured, as tables."""

import json
import textwrap
from collections.abc import Mapping
from functools import partial
from typing import Any

from cxr.reporting.leaderboard import markdown_table

Results = Mapping[str, Any]


def as_markdown(results: Results) -> str:
    """gpu.md from what stands in gpu.json, however much of it is there yet."""
    machine, gpu, steps = results["machine"], results["machine"]["gpu"], results["steps"]
    device = (
        f"{gpu['name']} ({gpu['memory_MB']:,} MB, driver {gpu['driver']}, CUDA {gpu['cuda']}, cuDNN {gpu['cudnn']})"
        if gpu
        else "no GPU: a dry run at toy size, whose figures mean nothing"
    )
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "torchvision", "pytorch_lightning"))
    parts = [
        "# cxr on a GPU",
        f"    {' '.join(results['command'])}",
        f"{machine['time']}: {device}; {machine['cores']} CPU cores; {versions}, cxr {machine['cxr']}. "
        + (f"All steps together took {results['seconds']:.0f} s." if "seconds" in results else "Not finished yet."),
    ]
    for name, part in PARTS.items():
        if name in steps:
            parts += [part(steps[name]), *failures(steps[name])]
    if missing := [name for name in results["requested"] if name not in steps]:
        parts.append(f"Not reached: {', '.join(missing)}.")
    return "\n\n".join(part for part in parts if part) + "\n"


def failures(step: Results) -> list[str]:
    """A line for each measurement that failed or was not reached."""
    return ["\n".join(f"- {name}: **{one['failed']}**" for name, one in step.items() if "failed" in one)]


def preparing(step: Results) -> str:
    seconds = ", ".join(f"{name} {one['took_s']:.0f} s" for name, one in step.items() if "failed" not in one)
    return f"Preparation, once per set of images: {seconds}."


def loops(step: Results) -> str:
    rows = []
    for setting in dict.fromkeys(name.partition(": ")[0] for name in step):
        rates = [step.get(f"{setting}: {run}", {}).get("images_per_s") for run in ("alone", "cxr", "student")]
        alone, ours, student = rates
        memory = step.get(f"{setting}: cxr", {}).get("gpu_MB")
        ratios = [over(ours, alone), over(ours, student)]
        rows.append([setting, *map(whole, rates), *(plain(ratio, ".2f") for ratio in ratios), whole(memory)])
    header = ["", "network alone", "cxr", "student", "cxr / network", "cxr / student", "GPU memory of cxr, MB"]
    return (
        "## The loop\n\nTraining, images/s, augmentation on; the network alone and cxr in bf16. *Network alone*: the "
        "same network, loss and optimizer, fed a batch that never changes, without CUDA graphs. *Student*: "
        "ImageFolder, "
        "torchvision's transforms image by image, a DataLoader with as many workers as cores, three channels, "
        "torch's fp32.\n\n"
        f"{markdown_table(header, rows)}"
    )


def grids(step: Results) -> str:
    parts = []
    for name, one in step.items():
        if "runs" not in one:
            continue
        rows = [
            [
                *(run, f"{r['seconds']:.1f}", f"{r['training']:.1f}", f"{r['validation']:.1f}", f"{r['test']:.1f}"),
                *(f"{r['elsewhere']:.1f}", whole(r["images_per_s"]), f"{r['f1_macro']:.3f}", f"{r['accuracy']:.3f}"),
            ]
            for run, r in one["runs"].items()
        ]
        header = ["run", "s", "training", "validation", "test", "elsewhere", "images/s", "macro F1", "accuracy"]
        busy = f"; kernels ran {one['gpu']['busy_percent']} % of the time" if one["gpu"] else ""
        after = f", {one['after']:.1f} s after the last one" if one["after"] is not None else ""
        parts.append(
            f"### {name}: {one['seconds']:.0f} s\n\n    python -m cxr.train {one['command']} …\n\n"
            f"{one['before']:.1f} s before the first run began{after}{busy}.\n\n{markdown_table(header, rows)}"
        )
    return "\n\n".join(parts)


def grid(step: Results) -> str:
    about = "The whole command, with a warm store; seconds by run; one seed, so not a finding."
    return f"## The 2 × 2 grid\n\n{about}\n\n{grids(step)}"


def variants(step: Results, title: str) -> str:
    rows = [
        [
            name,
            whole(one["images_per_s"]),
            whole(one.get("gpu_MB")),
            f"{one['first_step_s']:.1f}",
        ]
        for name, one in step.items()
        if "images_per_s" in one
    ]
    skipped = [f"{name} ({one['skipped']})" for name, one in step.items() if "skipped" in one]
    return (
        f"## {title}\n\n"
        + markdown_table(["", "images/s", "GPU memory, MB", "first step after, s"], rows)
        + (f"\n\nNot measured: {'; '.join(skipped)}." if skipped else "")
    )


def checked(step: Results) -> str:
    rows = []
    for name, one in step.items():
        if "failed" not in one:
            seen = {key: value for key, value in one.items() if key not in ("passed", "took_s") and value != ""}
            shown = "; ".join(
                f"{key}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
                for key, value in seen.items()
            )
            rows.append([name, "yes" if one["passed"] else "**no**", textwrap.shorten(shown, 160).replace("|", "\\|")])
    return f"## Does it compute what is promised?\n\n{markdown_table(['check', 'passed', 'seen'], rows)}"


def traces(step: Results) -> str:
    rows, longest, waits = [], [], []
    for name, one in step.items():
        if "step_ms" in one:
            shares = (f"{one[key]:.0%}" for key in ("kernels", "copies", "idle"))
            counts = (f"{one[key]:.0f}" for key in ("kernels_per_step", "launches_per_step"))
            waiting = f"{one['waiting_ms_per_step']:.2f}"
            rows.append(
                [name, f"{one['step_ms']:.2f}", *shares, *counts, f"{one['launching_ms_per_step']:.2f}", waiting]
            )
            longest += [[name, f"{share:.0%}", f"`{kernel[:90]}`"] for kernel, share in one["longest"][:5]]
            waits.append(f"{name}: {one['waits'] or 'none'}")
    if not rows:
        return "## Twenty steps under the profiler\n\nWithout a GPU there are no kernels to count."
    header = [
        "",
        "ms per step",
        "kernels",
        "copies",
        "idle",
        "kernels per step",
        "launches per step",
        "ms launching",
        "ms waiting",
    ]
    return (
        "## Twenty steps under the profiler, which slows them down\n\n"
        f"{markdown_table(header, rows)}\n\nCalls that make the host wait for the device: {'; '.join(waits)}.\n\n"
        f"{markdown_table(['', 'of the time in kernels', 'kernel'], longest)}"
    )


PARTS = {
    "prepare": preparing,
    "loop": loops,
    "grid": grid,
    "parallel": lambda step: f"## Several runs at a time\n\n{grids(step)}",
    "step": partial(variants, title="A step of the network alone, at the smaller batch"),
    "compile": partial(variants, title="The same, compiled"),
    "checks": checked,
    "trace": traces,
}


def over(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours and theirs else None


def plain(number: float | None, form: str) -> str:
    return "–" if number is None else format(number, form)


def whole(number: float | None) -> str:
    return plain(number, ",.0f")
