"""The held-out crops that a run reconstructs, read from RUN/examples/step_XXXXXXXX.safetensors.

Legend: C channels, D H W voxels along R, A, S.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from wavespark.errors import InputError
from wavespark.report.values import finite

Voxels = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

_ORIGINAL = re.compile(r"original_(\d{1,6})")
_FILE = re.compile(r"step_(\d{1,18})\.safetensors")
_MOST_CASES = 6
_LARGEST_CASE = 2**28
"""Voxels; a header that claims more is not believed."""


@dataclass(frozen=True, eq=False)
class Case:
    """One crop of a volume that was never trained on."""

    index: int
    original: Voxels
    """[C, D, H, W], as the network sees it."""
    reconstruction: Voxels
    """[C, D, H, W]: visible voxels as they are, hidden cells as predicted."""
    inpainting: Voxels | None
    """[C, D, H, W]: hidden voxels by trilinear interpolation from the visible ones."""
    visible: Flags
    """[D, H, W]: what the encoder saw."""
    foreground: Flags
    """[D, H, W]: what counts in the loss."""
    volume: str
    modality: str
    contrast: str
    spacing: tuple[float, float, float]
    """mm per voxel along D, H, W."""
    start: tuple[float, ...]
    """First voxel of the crop in its volume; empty if not told."""

    @property
    def scored(self) -> Flags:
        """[D, H, W]: hidden foreground."""
        return np.asarray(~self.visible & self.foreground)

    def error(self, prediction: Voxels) -> float | None:
        """Mean absolute error on hidden foreground, in the units of the volume; `None` if nothing
        there is finite."""
        difference = np.abs(prediction - self.original)[:, self.scored]
        return float(difference.mean(dtype=np.float64)) if difference.size and np.isfinite(difference).all() else None

    def same_as(self, other: "Case") -> bool:
        """Return True if the other is the same crop behind the same mask, so that the two may be
        compared."""
        return (
            (self.index, self.volume, self.start, self.original.shape)
            == (other.index, other.volume, other.start, other.original.shape)
            and np.array_equal(self.visible, other.visible)
            and np.array_equal(self.original, other.original, equal_nan=True)
        )


@dataclass(frozen=True, eq=False)
class Examples:
    """The newest reconstructions that can be read, and the oldest ones of the same crops."""

    step: int
    cases: list[Case]
    total: int
    """Cases in the file; `cases` may be fewer."""
    note: str
    """Remark of the run on how its predictions are shown; may be empty."""
    before_step: int | None
    before: dict[int, Case]
    """By the index of the case; empty if there is nothing to compare."""


def load_examples(folder: Path, missing: list[str]) -> Examples | None:
    """Load the pictures to show; `None` if there are none.

    A damaged file is named in `missing` and the next one is used.
    """
    files = sorted((int(m[1]), p) for p in folder.glob("step_*.safetensors") if (m := _FILE.fullmatch(p.name)))
    if not files:
        missing.append("examples/: no reconstruction has been written yet.")
    newest = _first_readable(files[::-1], missing)
    if newest is None:
        return None
    step, cases, total, note = newest
    oldest = _first_readable([f for f in files if f[0] < step], missing)
    if oldest is None:
        return Examples(step, cases, total, note, None, {})
    return Examples(
        step, cases, total, note, oldest[0], {b.index: b for b in oldest[1] if any(b.same_as(c) for c in cases)}
    )


def _first_readable(files: Sequence[tuple[int, Path]], missing: list[str]) -> tuple[int, list[Case], int, str] | None:
    for step, path in files:
        try:
            return step, *read_cases(path, _MOST_CASES)
        except InputError as error:
            sentence = f"examples/{error.sentence}, so it is left out here."
            if sentence not in missing:
                missing.append(sentence)
    return None


def read_cases(path: Path, most: int = 1000) -> tuple[list[Case], int, str]:
    """The first `most` cases of an example file, how many it holds, and its note.

    Raises:
        InputError: `damaged_example` if the file is not what a run writes.
    """
    try:
        with safe_open(path, framework="np") as file:
            names = set(file.keys())
            metadata = file.metadata() or {}
            told = _told(metadata)
            indices = sorted(int(m[1]) for name in names if (m := _ORIGINAL.fullmatch(name)))
            cases = [_case(file, names, k, told[k] if k < len(told) else {}) for k in indices[:most]]
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("damaged_example", f"{path.name}: cannot be read as reconstructions of a run") from error
    if not cases:
        raise InputError("damaged_example", f"{path.name}: holds no reconstruction")
    return cases, len(indices), metadata.get("note", "")


def _told(metadata: Mapping[str, str]) -> list[dict[str, Any]]:
    try:
        cases = json.loads(metadata.get("cases", "[]"))
    except (ValueError, RecursionError):
        return []
    return [case if isinstance(case, dict) else {} for case in cases] if isinstance(cases, list) else []


def _case(file: Any, names: set[str], k: int, told: dict[str, Any]) -> Case:
    shape = tuple(file.get_slice(f"original_{k}").get_shape())
    if len(shape) != 4 or min(shape) < 1 or int(np.prod(shape, dtype=np.float64)) > _LARGEST_CASE:
        raise ValueError

    def voxels(name: str) -> Voxels:
        if tuple(file.get_slice(f"{name}_{k}").get_shape()) != shape:
            raise ValueError
        return np.asarray(file.get_tensor(f"{name}_{k}"), dtype=np.float32)

    def flags(name: str) -> Flags:
        if tuple(file.get_slice(f"{name}_{k}").get_shape()) != shape[1:]:
            raise ValueError
        return np.asarray(file.get_tensor(f"{name}_{k}") != 0)

    return Case(
        index=k,
        original=voxels("original"),
        reconstruction=voxels("reconstruction"),
        inpainting=voxels("inpainting") if f"inpainting_{k}" in names else None,
        visible=flags("visible"),
        foreground=flags("foreground") if f"foreground_{k}" in names else np.ones(shape[1:], dtype=bool),
        volume=str(told.get("volume") or "a volume without a name"),
        modality=str(told.get("modality") or ""),
        contrast=str(told.get("contrast") or ""),
        spacing=_spacing(told.get("spacing")),
        start=_start(told.get("start")),
    )


def _spacing(value: Any) -> tuple[float, float, float]:
    """mm along D, H, W; 1 mm where it is not told or cannot be a spacing."""
    numbers = [finite({"v": v}, "v") for v in value] if isinstance(value, list) and len(value) == 3 else []
    if len(numbers) != 3 or not all(n is not None and 0.01 <= n <= 100 for n in numbers):
        return 1.0, 1.0, 1.0
    d, h, w = (float(n or 1.0) for n in numbers)
    return d, h, w


def _start(value: Any) -> tuple[float, ...]:
    numbers = [finite({"v": v}, "v") for v in value] if isinstance(value, list) and len(value) == 3 else []
    return tuple(n for n in numbers if n is not None)
