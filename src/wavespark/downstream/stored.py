"""What a store itself knows about its volumes (targets, marks, label maps that came with the data), in the form of labels."""

from collections import Counter
from dataclasses import dataclass

import numpy as np

from wavespark.downstream.items import Labelled, some_places
from wavespark.downstream.labels import LabelRow, LabelTable
from wavespark.errors import SettingsError
from wavespark.prepare import Store, StoredVolume
from wavespark.rsna_labels import LABELS

NAME = "the store"


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


def store_targets(store: Store) -> LabelTable:
    """The targets of the volumes, a row each; the labels of RSNA 2025 in their order first.

    Raises:
        SettingsError: if no volume has one.
    """
    names = {name for v in store for name in v.targets}
    columns = (*(n for n in LABELS if n in names), *sorted(names - set(LABELS)))
    rows = [
        LabelRow(line=k, volume=v.id, values={c: _text(v.targets.get(c)) for c in columns})
        for k, v in enumerate(store, 1)
        if v.targets
    ]
    return _table(store, columns, rows, "target")


def store_points(store: Store) -> LabelTable:
    """The marks of the volumes as x, y, z (RAS mm) and `location`; volumes that have targets and no mark show nothing.

    Raises:
        SettingsError: if no volume has a mark.
    """
    columns = ("x", "y", "z", "location")
    rows = []
    for k, v in enumerate(store, 1):
        for name, mm in v.marks:
            rows.append(
                LabelRow(
                    line=k,
                    volume=v.id,
                    values={**{c: f"{x:.3f}" for c, x in zip("xyz", mm, strict=True)}, "location": name},
                )
            )
        if v.targets and not v.marks:
            rows.append(LabelRow(line=k, volume=v.id, values=dict.fromkeys(columns, "")))
    if not any(row.values["x"] for row in rows):
        rows = []
    return _table(store, columns, rows, "mark")


def store_maps(store: Store, name: str | None = None, whichever: bool = False) -> list[Labelled]:
    """The volumes with a label map of that name; if None the only one there is, or the most frequent one of `whichever`.

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


def _table(store: Store, columns: tuple[str, ...], rows: list[LabelRow], what: str) -> LabelTable:
    if not rows:
        raise SettingsError(f"no volume of {store.path} came with a {what}: give the labels with --labels")
    return LabelTable(name=NAME, folder=store.path, columns=columns, rows=tuple(rows), unmatched=())


def _text(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
