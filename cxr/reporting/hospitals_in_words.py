"""What hospitals do to a score: classes that share none, scores by hospital, and the transfer gap, for people."""

from collections.abc import Mapping, Sequence
from typing import Any

from cxr.reporting.markdown import interval_text, some_of, with_interval, with_sign
from cxr.reporting.words import Words, words

PAIRS = 3  # of classes that a sentence names
SHOWN = 10  # hospitals that the console lists
ENGLISH = words("en")


def apart_lines(hospitals: Mapping[str, Any], w: Words = ENGLISH, score: str = "this_score") -> list[str]:
    """The pairs of classes that no hospital has both of, in a sentence; none if there are none. `score` is the word for
    what that spoils: this_score, inside_score where a hospital is held out or, before there is a score, any_score."""
    if not hospitals["apart"]:
        return []
    apart, named = [tuple(pair) for pair in hospitals["apart"]], hospitals["known"]
    values = {"score": w[score], "accuracy": hospitals.get("accuracy") or 0}
    left = list(dict.fromkeys(a for a, b in apart if b == apart[0][1]))
    right = list(dict.fromkeys(b for a, b in apart if a == apart[0][0]))
    if 1 < len(apart) < hospitals["pairs"] and {(a, b) for a in left for b in right} == set(apart):
        values |= {"left": w["or"].join(left), "right": w["or"].join(right)}
        return [w["two_sides" if named else "two_sides_by_files"].format(**values)]
    pairs = pairs_text(apart, hospitals["pairs"], w)
    return [w["apart" if named else "apart_by_files"].format(pairs=pairs, **values)]


def hospital_lines(hospitals: Mapping[str, Any], w: Words = ENGLISH, score: str = "this_score") -> list[str]:
    """The pairs of classes that no hospital has both of, the score within hospitals, and how well the hospital can be
    predicted; `hospitals` as in metrics.json, `score` as in apart_lines()."""
    lines = apart_lines(hospitals, w, score)
    if hospitals["known"] and (within := hospitals["within"]):
        names = ", ".join(f"{name} ({part['images']:,})" for name, part in within["hospitals"].items())
        lines.append(w["within"].format(names=names, f1=with_interval(within, "f1_macro")))
    if probes := hospitals.get("predicted_by"):
        sources = ", ".join(f"{w[name]} {with_interval(probe, 'accuracy')}" for name, probe in probes.items())
        first = next(iter(probes.values()))
        classes = w["and"].join(first["classes"])
        lines.append(w["predicted_by"].format(chance=first["chance"], classes=classes, sources=sources))
    return lines


def score_of(metrics: Mapping[str, Any]) -> str:
    """The word for what classes without a common hospital spoil: a hospital that is held out is one hospital."""
    return "inside_score" if metrics.get("transfer") else "this_score"


def lines_of_run(metrics: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """All sentences on hospitals of a run."""
    return [*transfer_lines(metrics, w), *hospital_lines(metrics["hospitals"], w, score_of(metrics))]


def pairs_text(apart: Sequence[Sequence[str]], pairs: int, w: Words) -> str:
    """Some of all pairs of classes, in few words."""
    if len(apart) == pairs > 1:
        return w["every_pair"]
    text = ", ".join(w["and"].join(pair) for pair in apart[:PAIRS])
    return text if len(apart) <= PAIRS else w["more_pairs"].format(pairs=text, n=len(apart) - PAIRS, all=pairs)


def hospital_notes(runs: Mapping[str, Mapping[str, Any]], w: Words = ENGLISH) -> list[str]:
    """What hospitals do to the scores of runs, whose metrics.json `runs` holds by name: each sentence on classes that
    share no hospital once and, of one run, its transfer gap (a table has those of several); runs whose test images are
    of one class; or that no hospital was held out."""
    gaps = [line for metrics in runs.values() for line in transfer_lines(metrics, w) if len(runs) == 1]
    judged = [metrics for metrics in runs.values() if "hospitals" in metrics]  # not by earlier versions
    shared = [line for metrics in judged for line in apart_lines(metrics["hospitals"], w, score_of(metrics))]
    alone: dict[str, list[str]] = {}
    for name, metrics in runs.items():
        of = [of for of, figures in metrics["test"].get("per_class", {}).items() if figures["support"]]
        if len(of) == 1:
            alone.setdefault(of[0], []).append(name)
    gaps += [w["one_class"].format(names=some_of(names, w["and_more"]), of=of) for of, names in alone.items()]
    held_out = any(metrics.get("transfer") for metrics in runs.values())
    untested = [w["not_tested_elsewhere"]] * bool(runs and not held_out)
    return [*gaps, *dict.fromkeys(shared), *untested]


def transfer_lines(metrics: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """The transfer gap, its parts and the classes that no network could learn, of a run with a hospital held out; else
    none."""
    transfer = metrics.get("transfer")
    if not transfer:
        return []
    inside, outside = transfer["inside"], metrics["test"]
    classes = [name for name, figures in outside["per_class"].items() if figures["support"]]
    key, of = ("accuracy", "transfer_of_one") if len(classes) == 1 else ("f1_macro", "transfer")  # of one: its recall
    gap = transfer["difference"][key]
    line = w[of].format(
        hospital=transfer["hold_out"],
        classes=w["and"].join(classes),
        outside=f"{with_interval(outside, key)} (n = {metrics['n_test']:,})",
        inside=f"{with_interval(inside['test'], key)} (n = {inside['n_test']:,})",
        gap=f"{with_sign(gap['difference'])} {interval_text(gap['ci95'], with_sign)}",
    )
    left_out = [
        w["not_learnt"].format(name=name, hospital=transfer["hold_out"], n=images)
        for name, images in transfer["not_learnt"].items()
    ]
    return [line, *gap_part_lines(transfer["gap_parts"], w), *left_out]


def gap_part_lines(parts: Mapping[str, Any] | None, w: Words = ENGLISH) -> list[str]:
    """What the loss outside consists of, see gap_parts(); none where that is not known."""
    if not parts:
        return []
    texts = {
        name: f"{with_sign(part['difference'])} {interval_text(part['ci95'], with_sign)}"
        for name, part in parts.items()
    }
    return [w["gap_parts"].format(**texts)]


def hospital_rows(metrics: Mapping[str, Any], w: Words = ENGLISH) -> list[list[str]]:
    """Hospital, images, macro F1 and recalls of each hospital, those that the run trained on first; none where no
    hospitals are known, or only one. "inside" or "outside" stands behind the names if one is held out."""
    transfer = metrics.get("transfer")
    sides = {"inside": transfer["hospitals"] if transfer else {}, "outside": metrics["hospitals"].get("scores", {})}
    rows = [
        [
            f"{name} ({w[side]})" if transfer else name,
            f"{scores['images']:,}",
            with_interval(scores, "f1_macro") if len(scores["per_class"]) > 1 else "–",  # of one class: its recall
            ", ".join(f"{of} {with_interval(share, 'recall')}" for of, share in scores["per_class"].items()),
        ]
        for side, hospitals in sides.items()
        for name, scores in hospitals.items()
    ]
    return rows if len(rows) > 1 else []


def class_table(table: Mapping[str, Mapping[str, int]], w: Words = ENGLISH) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table of images by hospital and class, the hospitals with most images first."""
    names = sorted(table, key=lambda name: -sum(table[name].values()))
    header = [w["hospital"], *next(iter(table.values()))]
    return header, [[name, *(f"{images:,}" if images else "" for images in table[name].values())] for name in names]


def hospital_header(w: Words = ENGLISH) -> list[str]:
    """The header of hospital_rows()."""
    return [w["hospital"], w["images"], w["f1_macro"], w["recall"]]


def by_hospital_lines(metrics: Mapping[str, Any], w: Words = ENGLISH) -> list[str]:
    """hospital_rows() as lines for the console."""
    rows = hospital_rows(metrics, w)
    lines = [f"  {name}, n = {images}: {recalls}" for name, images, _, recalls in rows[:SHOWN]]
    more = [f"  {w['more_hospitals'].format(n=len(rows) - SHOWN)}"] * (len(rows) > SHOWN)
    return [w["by_hospital"], *lines, *more] if rows else []
