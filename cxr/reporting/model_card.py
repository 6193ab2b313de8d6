"""MODEL_CARD.md of a run: use, performance and limits of a network (after Mitchell et al. 2019)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cxr.evaluation.screening import screenings_of
from cxr.files.run_folder import STATUS
from cxr.files.writing import read_json, write_text
from cxr.reporting.console import (
    beaten_lines,
    calibration_lines,
    rule_recall_lines,
    screening_lines,
    shortcut_lines,
)
from cxr.reporting.hospitals_in_words import hospital_header, hospital_rows, lines_of_run
from cxr.reporting.markdown import in_short, inert, interval_text, markdown_table, with_interval
from cxr.reporting.words import render, words

CARD = "MODEL_CARD.md"
LIMITS = ("limit_once", "limit_source", "limit_external", "limit_seed")


def write_model_card(
    folder: Path, metrics: Mapping[str, Any], config: Mapping[str, Any], audit: Mapping[str, Any]
) -> None:
    """Write MODEL_CARD.md into a run folder; every number is in metrics.json or audit.json."""
    w = words(config["report"]["lang"])
    test = metrics["test"]
    without = ", ".join(name for name, s in test["per_class"].items() if not s["support"])
    headlines = [[w[key], with_interval(test, key)] for key in ("f1_macro", "accuracy")]
    headlines += [["macro AUROC", with_interval(test, "auroc_macro")]] if test["auroc_macro"] is not None else []
    values = {
        "name": folder.name,
        "note": w.get(metrics["note"], metrics["note"]),
        "network": f"{network_name(config)}, {config['data']['image_size']} px, {cost(metrics['network'], w)}",
        "epochs": w["epochs"].format(n=metrics["train"]["epochs"]),
        "headlines": markdown_table([w["figures"], f"n = {metrics['n_test']:,}"], headlines),
        "per_class": class_figures(test, w),
        "hospitals": lines_of_run(metrics, w),
        "by_hospital": markdown_table(hospital_header(w), rows) if (rows := hospital_rows(metrics, w)) else "",
        "beaten": beaten_lines({folder.name: metrics}, w) + rule_recall_lines(metrics["shortcuts"], w),
        "without_images": w["without_images"].format(names=without) if without else "",
        "leaks": metrics["leaks"],
        "seed": config["seed"],
        "command": read_json(folder / STATUS).get("command", ""),
        "slices": markdown_table(
            [w["column"], w["value"], w["images"], w["accuracy"]],
            [
                [column, value, f"{s['images']:,}", with_interval(s, "accuracy")]
                for column, of in metrics["slices"].items()
                for value, s in of.items()
            ],
        )
        if metrics["slices"]
        else "",
        "images": [f"{name} {number:,}" for name, number in audit["classes"].items()],
        "split": config["data"]["split"],
        "shortcuts": [line.strip() for line in shortcut_lines(metrics["shortcuts"], w)[1:]],
        "calibration": [line.strip() for line in calibration_lines(metrics["calibration"], w)],
        "screening": screening_items(metrics, w),
        "limits": [w[key] for key in LIMITS] + unknown_patients(audit, w),
        "versions": metrics["versions"],
        "data_hash": audit["sha256"],
    }
    write_text(folder / CARD, inert(render(CARD, config["report"]["lang"], values)))


def class_figures(test: Mapping[str, Any], w: Mapping[str, str]) -> str:
    """Precision, recall and F1 of each class that has test images, as a table."""
    ends = test["ci95"]["per_class"]
    rows = []
    for name, scores in test["per_class"].items():
        if scores["support"]:
            figures = [f"{scores[key]:.3f} {interval_text(ends[name][key])}" for key in ("precision", "recall", "f1")]
            rows.append([name, *figures, f"{scores['support']:,}"])
    return markdown_table([w["class"], w["precision"], w["recall"], "F1", w["images"]], rows)


def unknown_patients(audit: Mapping[str, Any], w: Mapping[str, str]) -> list[str]:
    """A limit, if the patients of some images are not known."""
    unknown = audit["images_of_unknown_patients"]
    return [w["limit_patients"].format(unknown=unknown, n=audit["images"])] if unknown else []


def screening_items(metrics: Mapping[str, Any], w: Mapping[str, str]) -> list[str]:
    """What the console says about screening, and what its promise means."""
    note = [w["promise_note"]] if screenings_of(metrics) else []
    return [line.strip() for line in screening_lines(metrics, w)] + note


def network_name(config: Mapping[str, Any]) -> str:
    """timm's name for the network, or that of the function or class that makes it."""
    return config["model"].get("name") or config["model"]["_target_"].rsplit(".", 1)[-1]


def cost(network: Mapping[str, int], w: Mapping[str, str]) -> str:
    """Parameters, and FLOPs of the forward pass of one image."""
    return f"{w['parameters']} {in_short(network['parameters'])}, {w['flops']} {in_short(network['flops'])}"
