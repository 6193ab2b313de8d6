"""Which film trains, validates and tests. A patient never stands on two sides."""

import numpy as np

from cxr.data.sources import Films
from cxr.errors import UserError


def split_films(
    films: Films, protocol: str, seed: int, test_fraction: float = 0.2, val_fraction: float = 0.1
) -> np.ndarray:
    """Deal the films out to train, val, test and unused.

    Args:
        films: the table.
        protocol: "pooled" (all films are pooled, then dealt out, stratified by class) or "given" (the set's own test
            folder; training films of patients who also stand in test are unused).
        seed: of the draw.
        test_fraction: share of all films that tests; pooled only.
        val_fraction: share of the remaining films that validates; 0 for none.

    Returns:
        string array of length N.

    Raises:
        UserError: there is one class only, a class cannot stand on every side, or no test folder is given.
    """
    if len(films.classes) < 2:
        raise UserError(f"{films.root}: films of one class only ({films.classes[0]}); a classifier needs two")
    rng = np.random.default_rng(seed)
    group = patient_groups(films.patient)
    split = np.full(len(films), "train", dtype="<U6")
    if protocol == "given":
        test = films.split == "test"
        if not test.any():
            raise UserError("data.split=given: this set has no test folder; use data.split=pooled")
        split[np.isin(group, group[test])] = "unused"
        split[test] = "test"
    else:
        left = 2 if val_fraction else 1
        split[draw(films, group, split == "train", test_fraction, left, rng)] = "test"
    if val_fraction:
        split[draw(films, group, split == "train", val_fraction, 1, rng)] = "val"
    check_sides(films, split, group, ("train", "val", "test") if val_fraction else ("train", "test"))
    return split


def patient_groups(patient: np.ndarray) -> np.ndarray:
    """A number for each film, equal for the films of one patient; a film of an unknown patient stands alone."""
    _, group = np.unique(patient, return_inverse=True)
    alone = patient == ""
    group[alone] = group.max(initial=0) + 1 + np.arange(alone.sum())
    return group


def draw(
    films: Films, group: np.ndarray, pool: np.ndarray, fraction: float, leave: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw whole patients from `pool` until each class has given `fraction` of its films there.

    Patients come in random order, each counts for the class of most of its films, and one that would overshoot its
    class's number is passed over: so the numbers are met to the film wherever patients with one film are left.
    `leave` patients of each class stay in the pool, one for each side that is still to be served.

    Returns:
        bool array of length N.
    """
    chosen = np.zeros(len(films), dtype=bool)
    rows_of = rows_by_group(group, pool)
    label_of = {g: int(np.bincount(films.label[rows]).argmax()) for g, rows in rows_of.items()}
    order = rng.permutation(list(rows_of)).tolist()
    for label in range(len(films.classes)):
        own = [g for g in order if label_of[g] == label]
        wanted = max(1, round(fraction * int((pool & (films.label == label)).sum())))
        drawn: list[int] = []
        for g in own:
            if len(own) - len(drawn) > leave and len(rows_of[g]) <= wanted:
                drawn.append(g)
                wanted -= len(rows_of[g])
        if not drawn and len(own) > leave:  # every patient has more films than wanted: the smallest one goes
            drawn = [min(own, key=lambda g: len(rows_of[g]))]
        for g in drawn:
            chosen[rows_of[g]] = True
    return chosen


def rows_by_group(group: np.ndarray, pool: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each group that has rows in `pool`."""
    rows = np.flatnonzero(pool)
    rows = rows[np.argsort(group[rows], kind="stable")]
    numbers, starts = np.unique(group[rows], return_index=True)
    return dict(zip(numbers.tolist(), np.split(rows, starts[1:]), strict=True))


def check_sides(films: Films, split: np.ndarray, group: np.ndarray, sides: tuple[str, ...]) -> None:
    """Raise UserError for the first class that is missing on a side."""
    for label, name in enumerate(films.classes):
        own = films.label == label
        if lacking := [side for side in sides if not (own & (split == side)).any()]:
            raise UserError(
                f"class {name} has {own.sum()} films of {len(np.unique(group[own]))} patients, but none left for "
                f"{', '.join(lacking)}: each class must stand in {', '.join(sides)}; add films or leave the class out"
            )
