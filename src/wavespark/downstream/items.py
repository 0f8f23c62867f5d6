"""Labelled volumes: a stored volume with what is known about it, and windows of both together. Axes D, H, W follow R, A, S."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import blosc2
import nibabel as nib
import numpy as np

from wavespark.downstream.labels import LabelTable
from wavespark.errors import SettingsError, VolumeError
from wavespark.prepare import Store, StoredVolume, held_out
from wavespark.prepare.labels import resample_labels
from wavespark.randomness import stream
from wavespark.sampling import Region, read_crop
from wavespark.sampling.scene import Scene
from wavespark.shapes import Triple
from wavespark.volumes.privacy import unquoted

LABELS = "labels"
_PLACES = 4000
_MAX_VOXELS = 2**28
_SMALLEST_REACH_MM = 3.0


def _nowhere() -> np.ndarray:
    return np.empty((0, 3), np.float32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Labelled:
    """A volume and what is known about it. N points, L classes."""

    volume: StoredVolume
    map: Any = None
    """Whole numbers [D, H, W] on the stored grid, read by slices: compressed in memory, or in the store."""
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
    """Voxels, foreground, label map and points of a box; what reaches out of the volume is background."""
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
    """Start of a window: around a point or a voxel of a label drawn evenly among its labels, or anywhere in the foreground box."""
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
    """Moved into the volume; centred along an axis on which the volume is smaller than the window."""
    room = np.array(whole) - np.array(size)
    moved: np.ndarray = np.where(room < 0, room // 2, np.clip(start, 0, np.maximum(room, 0)))
    return moved


def with_maps(table: LabelTable, store: Store, column: str) -> list[Labelled]:
    """The volumes for which the column names a segmentation file, below the table's folder.

    Raises:
        SettingsError: if there is no such column, a path leaves the folder, or a volume is named twice.
        VolumeError: if a file cannot be read.
    """
    table.require(column)
    items = []
    for name, rows in table.by_volume().items():
        paths = [(row.line, row.values[column]) for row in rows if row.values[column]]
        if len(paths) > 1:
            raise SettingsError(
                f"{table.name}: lines {paths[0][0]} and {paths[1][0]} name two segmentations of one volume"
            )
        for line, path in paths:
            labels, affine = read_label_map(below(table, path, line), f"{table.name}, line {line}")
            items.append(with_map(store[name], labels, affine))
    if not items:
        raise SettingsError(f"{table.name}: column {column!r} is empty")
    return items


def with_map(volume: StoredVolume, labels: np.ndarray, affine: np.ndarray) -> Labelled:
    """The volume with a segmentation brought onto its grid.

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
    """Label value -> int32 [n, 3]: its voxels, or some thousands of them drawn by the volume's content hash."""
    rng = stream(0, purpose="label places", volume=content)
    places = {}
    for value in np.unique(labels[labels > 0]):
        voxels = np.argwhere(labels == value).astype(np.int32)
        places[int(value)] = (
            voxels if len(voxels) <= _PLACES else voxels[rng.choice(len(voxels), _PLACES, replace=False)]
        )
    return places


def with_points(table: LabelTable, store: Store) -> list[Labelled]:
    """The volumes of the table with the points (columns x, y, z in RAS mm; `diameter` in mm if there is one) of all their rows.

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
        back = np.linalg.inv(volume.affine)
        points = (mm[:, :3] @ back[:3, :3].T + back[:3, 3]).astype(np.float32)
        reach = np.maximum(mm[:, 3] / 2, _SMALLEST_REACH_MM).astype(np.float32)
        items.append(Labelled(volume=volume, points=points, reach_mm=reach))
    return items


def _number(text: str, table: LabelTable, line: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise SettingsError(
            f"{table.name}, line {line}: x, y, z and diameter must be numbers (RAS mm), or x, y, z all empty"
        )
    return value


def below(table: LabelTable, path: str, line: int) -> Path:
    """The file that a table names, which must lie below the table's folder.

    Raises:
        SettingsError: if it does not, or is not there.
    """
    real = Path(os.path.realpath(table.folder / path))
    if not real.is_relative_to(table.folder):
        raise SettingsError(f"{table.name}, line {line}: a path leads out of the folder of the table")
    if not real.is_file():
        raise SettingsError(f"{table.name}, line {line}: there is no such file")
    return real


def read_label_map(path: Path, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels [i, j, k] (uint8 or uint16) of a NIfTI file, and its affine.

    Raises:
        VolumeError: if it is no NIfTI file of whole numbers from 0 in three dimensions.
    """
    with unquoted("not_nifti", f"{where}: the segmentation cannot be read as NIfTI"):
        image = nib.load(path)
        shape = tuple(image.shape)  # type: ignore[attr-defined]
        if not 3 <= len(shape) <= 4 or shape[3:] not in ((), (1,)) or np.prod(shape) > _MAX_VOXELS:
            raise VolumeError(
                "not_3d",
                f"{where}: a segmentation must have three dimensions and at most {_MAX_VOXELS} voxels, got {shape}",
            )
        values = np.asarray(image.dataobj).reshape(shape[:3])  # type: ignore[attr-defined]
        affine = np.asarray(image.affine, np.float64)  # type: ignore[attr-defined]
    whole = np.rint(values)
    if not np.array_equal(whole, values) or values.min(initial=0) < 0 or values.max(initial=0) > 65535:
        raise VolumeError("unsupported_dtype", f"{where}: a segmentation must hold whole numbers from 0 to 65535")
    return whole.astype(np.uint8 if whole.max(initial=0) < 256 else np.uint16), affine


def split_labelled(
    items: Sequence[Labelled], table: LabelTable | None, fraction: float, seed: int
) -> tuple[list[Labelled], list[Labelled]]:
    """Training and test items: by the column `split` (train or test) if there is one, else by patient (law I27); never is a side empty.

    Raises:
        SettingsError: if a split is impossible.
    """
    name = table.name if table else "the store"
    if table and "split" in table.columns:
        side = {row.volume: row.values["split"].lower() for row in table.rows}
        if set(side.values()) - {"train", "test"}:
            raise SettingsError(f"{table.name}: column 'split' must say train or test in every row")
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
