"""Labelled volumes, and windows of voxels and labels together. Axes D, H, W follow R, A, S."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import blosc2
import numpy as np

from wavespark.downstream.labels import LabelTable, quoted
from wavespark.errors import SettingsError, VolumeError
from wavespark.prepare import Store, StoredVolume, held_out
from wavespark.prepare.labels import resample_labels
from wavespark.randomness import stream
from wavespark.sampling import Region, read_crop
from wavespark.sampling.scene import Scene
from wavespark.shapes import Triple
from wavespark.volumes import read_label_map

LABELS = "labels"
_PLACES = 4000
_LABEL_ENDINGS = (".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".mgh", ".mgz", ".mha", ".mhd")
_SMALLEST_REACH_MM = 3.0


def _nowhere() -> np.ndarray:
    return np.empty((0, 3), np.float32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labelled:
    """A volume with its labels. N points, L classes."""

    volume: StoredVolume
    map: Any = None
    """Whole numbers [D, H, W] on the stored grid, read by slices: compressed in memory, or in the
    store."""
    places: dict[int, np.ndarray] = field(default_factory=dict)
    """Label value -> int32 [n, 3]: some of its voxels."""
    targets: np.ndarray | None = None
    """float32 [L]: 0 or 1, NaN where nothing is known."""
    points: np.ndarray = field(default_factory=_nowhere)
    """float32 [N, 3]: voxel index on the stored grid."""
    reach_mm: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """float32 [N]: how near a found point must be to count."""

    def read_map(self) -> np.ndarray:
        """The whole label map, [D, H, W].

        Raises:
            SettingsError: if there is none.
        """
        if self.map is None:
            raise SettingsError(f"volume {self.volume.id} has no label map")
        return np.asarray(self.map[:])


def window(item: Labelled, start: Triple, size: Triple) -> Scene:
    """Cut voxels, foreground, label map and points of a box; beyond the volume is background."""
    volume = item.volume
    crop = read_crop(volume, Region(volume=volume.id, start=(0, 0, 0), size=volume.size), start, size)
    maps = {"foreground": crop.foreground}
    if item.map is not None:
        first = tuple(max(0, s) for s in start)
        last = tuple(min(s + n, m) for s, n, m in zip(start, size, volume.size, strict=True))
        inside = np.asarray(item.map[tuple(slice(a, b) for a, b in zip(first, last, strict=True))])
        maps[LABELS] = np.pad(inside, [(a - s, s + n - b) for a, b, s, n in zip(first, last, start, size, strict=True)])
    return Scene(voxels=crop.voxels, maps=maps, points=item.points - np.array(start, np.float32))


def widened(item: Labelled, start: Triple, size: Triple) -> Callable[[Triple, Triple], Scene]:
    """(margin before, after) -> the same window with that much more around it."""

    def widen(before: Triple, after: Triple) -> Scene:
        s0, s1, s2 = (s - b for s, b in zip(start, before, strict=True))
        n0, n1, n2 = (n + b + a for n, b, a in zip(size, before, after, strict=True))
        return window(item, (s0, s1, s2), (n0, n1, n2))

    return widen


def place_window(item: Labelled, size: Triple, rng: np.random.Generator, labelled_share: float) -> Triple:
    """Choose the start of a window: around a point or a voxel of a label drawn evenly among its
    labels, or anywhere in the foreground box."""
    seeds = [*item.places.values()] if item.places else [item.points] if len(item.points) else []
    wanted, which, place = rng.random() < labelled_share, rng.random(), rng.random(3)
    shift = rng.uniform(-0.3, 0.3, 3) * size
    if seeds and wanted:
        voxels = seeds[int(which * len(seeds))]
        centre = voxels[int(place[0] * len(voxels))] + shift
        start = np.rint(centre - np.array(size) / 2)
    else:
        start = np.floor(place * (np.array(item.volume.size) - size + 1))
    start = _inside(start, item.volume.size, size)
    return int(start[0]), int(start[1]), int(start[2])


def _inside(start: np.ndarray, whole: Triple, size: Triple) -> np.ndarray:
    """Move a window into the volume; centre it along an axis on which the volume is smaller than
    the window."""
    room = np.array(whole) - np.array(size)
    moved: np.ndarray = np.where(room < 0, room // 2, np.clip(start, 0, np.maximum(room, 0)))
    return moved


def with_maps(table: LabelTable, store: Store, column: str) -> list[Labelled]:
    """Label the volumes for which the column names a segmentation file.

    Raises:
        SettingsError: if there is no such column, a path leaves the folder, or a volume is named
            twice.
        VolumeError: if a file cannot be read.
    """
    table.require(column)
    items, files = [], LabelFiles(table)
    for name, rows in table.by_volume().items():
        paths = [(row.line, row.values[column]) for row in rows if row.values[column]]
        if len(paths) > 1:
            raise SettingsError(
                f"{table.name}: lines {paths[0][0]} and {paths[1][0]} name two segmentations of one volume"
            )
        for line, path in paths:
            labels, affine = read_labels_of(files.path(path, line), f"{table.name}, line {line}: {quoted(path)}")
            items.append(with_map(store[name], labels, affine))
    if not items:
        raise SettingsError(f"{table.name}: column {column!r} is empty")
    return items


def with_map(volume: StoredVolume, labels: np.ndarray, affine: np.ndarray) -> Labelled:
    """Label a volume with a segmentation, resampled to its grid.

    Args:
        volume: in the store.
        labels: whole numbers [i, j, k], at least 0.
        affine: [4, 4], index of `labels` to RAS mm.
    """
    on_grid = resample_labels(labels, affine, volume.size, volume.affine)
    blosc2.set_nthreads(1)
    return Labelled(
        volume=volume, map=blosc2.asarray(np.ascontiguousarray(on_grid)), places=some_places(on_grid, volume.content)
    )


def some_places(labels: np.ndarray, content: str) -> dict[int, np.ndarray]:
    """Label value -> int32 [n, 3]: its voxels, or some thousands of them drawn by the volume's
    content hash."""
    rng = stream(0, purpose="label places", volume=content)
    places = {}
    for value in np.unique(labels[labels > 0]):
        voxels = np.argwhere(labels == value).astype(np.int32)
        places[int(value)] = (
            voxels if len(voxels) <= _PLACES else voxels[rng.choice(len(voxels), _PLACES, replace=False)]
        )
    return places


def with_points(table: LabelTable, store: Store) -> list[Labelled]:
    """Label the volumes of a table with the points of their rows: columns x, y, z in RAS mm, and
    `diameter` in mm if there is one.

    A row with empty coordinates says that the scan was read and shows nothing.

    Raises:
        SettingsError: if a column is missing or no number.
    """
    table.require("x", "y", "z")
    items = []
    for name, rows in table.by_volume().items():
        volume, found = store[name], []
        for row in rows:
            texts = [row.values[c] for c in "xyz"]
            if any(texts):
                found.append(
                    (
                        *(_number(t, table, row.line) for t in texts),
                        _number(row.values.get("diameter") or "0", table, row.line),
                    )
                )
        mm = np.array(found, np.float64).reshape(-1, 4)
        items.append(with_places(volume, mm[:, :3], mm[:, 3]))
    return items


def with_places(volume: StoredVolume, points_mm_N3: np.ndarray, diameters_mm_N: np.ndarray | None = None) -> Labelled:
    """Attach points to a volume.

    Args:
        volume: in the store.
        points_mm_N3: RAS mm.
        diameters_mm_N: mm; a point counts as found within half of it, and within 3 mm at least.

    Returns:
        The labelled volume; no points say that it was read and shows nothing.
    """
    back = np.linalg.inv(volume.affine)
    points = (points_mm_N3 @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
    diameters = np.zeros(len(points)) if diameters_mm_N is None else diameters_mm_N
    reach = np.maximum(diameters / 2, _SMALLEST_REACH_MM).astype(np.float32)
    return Labelled(volume=volume, points=points, reach_mm=reach)


def _number(text: str, table: LabelTable, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise SettingsError(
            f"{table.name}, line {line}: {quoted(text)} is no number; x, y, z and diameter must be numbers (RAS mm), "
            "or x, y, z all empty"
        )
    return value


class LabelFiles:
    """The files that a table of labels names: below its folder, or by absolute path."""

    def __init__(self, table: LabelTable) -> None:
        self.table = table

    def path(self, text: str, line: int) -> Path:
        """Find the file that a cell names by its path or, if only one file below the table's folder
        has it, by its name.

        Raises:
            SettingsError: if the path leads elsewhere, there is no such file, or several files have
                the name.
        """
        folder, where = self.table.folder, f"{self.table.name}, line {line}"
        real = Path(os.path.realpath(folder / text))
        if not real.is_relative_to(folder) and not (Path(text).is_absolute() and text.endswith(_LABEL_ENDINGS)):
            raise SettingsError(
                f"{where}: {quoted(text)} leads out of the folder of the table: give its absolute path, or put it there"
            )
        if real.is_file():
            return real
        named = self._by_name.get(text, [])
        if len(named) > 1:
            raise SettingsError(f"{where}: {len(named)} files below {folder} are called {quoted(text)}: give a path")
        if not named or not (real := Path(os.path.realpath(named[0]))).is_relative_to(folder):
            raise SettingsError(f"{where}: there is no such file as {quoted(text)} below {folder}")
        return real

    @cached_property
    def _by_name(self) -> dict[str, list[str]]:
        names: dict[str, list[str]] = {}
        for folder, _, files in os.walk(self.table.folder):
            for name in files:
                names.setdefault(name, []).append(os.path.join(folder, name))
        return names


def read_labels_of(path: Path, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Read a segmentation whose labels count from 0.

    Args:
        path: a file that `wavespark.volumes.read_label_map` reads.
        where: file and line for messages.

    Returns:
        Labels [i, j, k] (uint8 or uint16), and their affine, index to RAS mm.

    Raises:
        VolumeError: if it is no label map, or holds values below 0 or above 65535.
    """
    try:
        labels, affine = read_label_map(os.fsencode(path))
    except VolumeError as error:
        raise VolumeError(error.reason, f"{where}: {error.sentence}") from None
    low, high = int(labels.min(initial=0)), int(labels.max(initial=0))
    if low < 0 or high > 65535:
        raise VolumeError(
            "unsupported_dtype",
            f"{where}: a segmentation must hold whole numbers from 0 to 65535, this one has {low} to {high}",
        )
    return labels.astype(np.uint8 if high < 256 else np.uint16), affine


def split_labelled(
    items: Sequence[Labelled], table: LabelTable | None, fraction: float, seed: int
) -> tuple[list[Labelled], list[Labelled]]:
    """Split into training and test items: by the column `split` (train or test) if there is one,
    else by patient (law I27); no side is empty.

    Raises:
        SettingsError: if a split is impossible.
    """
    name = table.name if table else "the store"
    if table and "split" in table.columns:
        side = {row.volume: row.values["split"].lower() for row in table.rows}
        if set(side.values()) - {"train", "test"}:
            line, word = next(
                (r.line, r.values["split"]) for r in table.rows if side[r.volume] not in ("train", "test")
            )
            raise SettingsError(
                f"{table.name}, line {line}: column 'split' must say train or test in every row, not {quoted(word)}"
            )
        train, test = ([i for i in items if side[i.volume.id] == s] for s in ("train", "test"))
        both = {i.volume.patient for i in train} & {i.volume.patient for i in test}
        if both:
            raise SettingsError(f"{table.name}: {len(both)} patient(s) are on both sides of the column 'split'")
    else:
        volumes = [i.volume for i in items]
        patients = sorted({v.patient for v in volumes}, key=lambda p: min(v.content for v in volumes if v.patient == p))
        if len(patients) < 2:
            raise SettingsError(
                f"{name} labels {len(items)} volume(s) of {len(patients)} patient: testing needs another patient"
            )
        _, outside = held_out(volumes, fraction, seed)
        never = {v.patient for v in outside}
        count = max(1, min(len(patients) - 1, round(fraction * len(patients))))
        if (
            not 0 < len(never) < len(patients) or abs(len(never) - count) > 1
        ):  # few patients: a hash alone can leave a side nearly empty
            order = stream(seed, purpose="test patients").permutation(len(patients))
            never = {patients[k] for k in order[:count]}
        train, test = (
            [i for i in items if i.volume.patient not in never],
            [i for i in items if i.volume.patient in never],
        )
    if not train or not test:
        raise SettingsError(
            f"{name} leaves {len(train)} volume(s) to train on and {len(test)} to test on: both need at least one"
        )
    return train, test
