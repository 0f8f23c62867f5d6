"""Repeated, stratified folds over patients: no patient is on both sides of a split.

Legend: R repeats, N rows.
"""

from collections.abc import Hashable, Sequence

import numpy as np

from wavespark.errors import ShapeError
from wavespark.randomness import stream


def patient_folds(
    patients: Sequence[Hashable],
    targets: Sequence[Hashable] | np.ndarray,
    *,
    numeric: bool = False,
    folds: int = 6,
    repeats: int = 1,
    seed: int = 0,
) -> np.ndarray:
    """Deal patients into folds so that classes, or the range of a number, are spread evenly over
    the folds.

    Patients with the same set of classes are shuffled and dealt in turn. With numbers, patients are
    sorted by their mean and each run of `folds` neighbours is spread over all folds. There are at
    most half as many folds as patients, so that a fold holds two patients and an AUC can compare
    them, and never fewer than two.

    Args:
        patients: patient of each row.
        targets: class or number of each row.
        numeric: whether `targets` are numbers.
        folds: parts of one repeat.
        repeats: how many times the patients are dealt.
        seed: random seed of the shuffles.

    Returns:
        int64 [R, N]: the fold of each row in each repeat.

    Raises:
        ShapeError: if there are fewer than two patients, or not one target a row.
    """
    if len(patients) != len(targets):
        raise ShapeError(f"folds need one target a row, got {len(targets)} for {len(patients)} row(s)")
    rows_of: dict[Hashable, list[int]] = {}
    for row, patient in enumerate(patients):
        rows_of.setdefault(patient, []).append(row)
    names = sorted(rows_of, key=str)
    if len(names) < 2:
        raise ShapeError(f"folds need two patients, got {len(names)} patient(s)")
    count = max(2, min(folds, len(names) // 2))
    result = np.empty((repeats, len(patients)), np.int64)
    for repeat in range(repeats):
        rng = stream(seed, purpose="probe folds", step=repeat)
        order = [names[k] for k in rng.permutation(len(names))]
        for patient, fold in _dealt(order, rows_of, targets, numeric, count, rng).items():
            result[repeat, rows_of[patient]] = fold
    return result


def _dealt(
    order: list[Hashable],
    rows_of: dict[Hashable, list[int]],
    targets: Sequence[Hashable] | np.ndarray,
    numeric: bool,
    count: int,
    rng: np.random.Generator,
) -> dict[Hashable, int]:
    """The fold of each patient of one repeat; `order` is already shuffled, and sorting keeps the
    order of equals."""
    if not numeric:
        order = sorted(order, key=lambda p: sorted({str(targets[r]) for r in rows_of[p]}))
        return {patient: place % count for place, patient in enumerate(order)}
    order = sorted(order, key=lambda p: float(np.mean([float(targets[r]) for r in rows_of[p]])))  # type: ignore[arg-type]
    fold_of: dict[Hashable, int] = {}
    for start in range(0, len(order), count):
        fold_of |= dict(zip(order[start : start + count], rng.permutation(count).tolist(), strict=False))
    return fold_of
