"""Labelled volumes from what came with the data of a store: targets, marks, label maps."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wavespark.downstream.items import Labelled, some_places, with_places
from wavespark.errors import SettingsError
from wavespark.prepare import Store, StoredVolume
from wavespark.rsna_labels import LABELS

MOST_CLASSES = 100
"""Different values of a target that are taken as classes."""


@dataclass(frozen=True, slots=True)
class StoredMap:
    """A label map of a store, read by slices."""

    volume: StoredVolume
    name: str

    def __getitem__(self, box: slice | tuple[slice, ...]) -> np.ndarray:
        if isinstance(box, slice):
            return self.volume.read_label(self.name)[box]
        start = [side.start for side in box]
        return self.volume.read_label(self.name, start, [side.stop - side.start for side in box])


def target_names(store: Store) -> tuple[str, ...]:
    """Names of the targets that came with the volumes; the labels of RSNA 2025 in their order
    first."""
    names = {name for v in store for name in v.targets}
    return (*(n for n in LABELS if n in names), *sorted(names - set(LABELS)))


def store_targets(store: Store, columns: Sequence[str]) -> tuple[list[Labelled], tuple[str, ...], bool]:
    """Build labelled volumes from the targets of a store.

    Targets of 0 and 1 are labels (unknown where a volume has none); a single target with other
    values is a set of classes, one for each value.

    Args:
        store: whose volumes came with targets.
        columns: names of targets.

    Returns:
        The volumes, the names of the labels or classes, and whether exactly one of them is right.

    Raises:
        SettingsError: if no volume has a target, one is not known, or several have other values
            than 0 and 1.
    """
    known = target_names(store)
    if not known:
        raise SettingsError(_nothing(store, "target"))
    if missing := [c for c in columns if c not in known]:
        raise SettingsError(
            f"{store.path} knows no {', '.join(map(repr, missing))}; its volumes came with {', '.join(map(repr, known))}"
        )
    volumes = [v for v in store if v.targets]
    values = np.array([[v.targets.get(c, np.nan) for c in columns] for v in volumes], np.float64)
    present = np.unique(values[np.isfinite(values)])
    if set(present.tolist()) <= {0.0, 1.0}:
        rows = values.astype(np.float32)
        return [Labelled(volume=v, targets=row) for v, row in zip(volumes, rows, strict=True)], tuple(columns), False
    if len(columns) > 1:
        raise SettingsError(f"{store.path}: several targets are learned together only if they hold 0, 1 or nothing")
    if not 2 <= len(present) <= MOST_CLASSES:
        raise SettingsError(
            f"{store.path}: target {columns[0]!r} has {len(present)} different value(s); classes are 2 to {MOST_CLASSES}"
        )
    items = [
        Labelled(volume=v, targets=(present == value).astype(np.float32))
        for v, value in zip(volumes, values[:, 0], strict=True)
        if np.isfinite(value)
    ]
    return items, tuple(f"{value:g}" for value in present), True


def store_points(store: Store) -> list[Labelled]:
    """Build labelled volumes from the marks of a store; volumes with targets and without a mark
    show nothing.

    Raises:
        SettingsError: if no volume has a mark.
    """
    if not any(v.marks for v in store):
        raise SettingsError(_nothing(store, "mark"))
    return [
        with_places(v, np.array([mm for _, mm in v.marks], np.float64).reshape(-1, 3))
        for v in store
        if v.marks or v.targets
    ]


def store_maps(store: Store, name: str | None = None, whichever: bool = False) -> list[Labelled]:
    """Label volumes with the label map of that name; if None with the only one, or the most
    frequent one if `whichever`.

    Raises:
        SettingsError: if there is none.
    """
    names = Counter(n for v in store for n in v.labels())
    if name is None and len(names) > 1 and not whichever:
        raise SettingsError(f"{store.path} holds the label maps {', '.join(sorted(names))}: say which with --column")
    name = name or next((n for n, _ in names.most_common(1)), None)
    items = []
    for volume in store:
        if name is not None and name in volume.labels():
            items.append(
                Labelled(
                    volume=volume,
                    map=StoredMap(volume, name),
                    places=some_places(volume.read_label(name), volume.content),
                )
            )
    if not items:
        raise SettingsError(
            f"{store.path} holds {'no label map' if name is None else f'no label map {name!r}'}; it has {', '.join(sorted(names)) or 'none'}. "
            "Give the labels with --labels"
        )
    return items


def _nothing(store: Store, kind: str) -> str:
    return f"no volume of {store.path} came with a {kind}: give the labels with --labels"
