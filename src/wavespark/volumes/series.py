"""Slices to stacks: which slices belong together, in which order, and where they lie.

Geometry only, no files.

Order comes from position along the normal (row direction x column direction), never from z, names
or instance numbers. Millimetres are LPS here, as in DICOM; the affine that comes out is RAS.
Source: DICOM PS3.3 C.7.6.2.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import combinations, pairwise

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.contrasts import NO_LABEL, Label
from wavespark.volumes.orientation import LPS_TO_RAS, affine_from_axes
from wavespark.volumes.settings import ASSUME_GEOMETRY, AssumedGeometry, ReadingSettings
from wavespark.volumes.traits import ACQUISITION_DATE, ACQUISITION_NUMBER, ACQUISITION_TIME, MEASURED

_MAJORITY = 0.8
_STEP_SHARE, _STEP_MM = 0.1, 0.02  # tolerance of a step between slices
_SAME_PLACE_MM = 0.01
_LEAST_SLICES = 3
_WIDEST = 5.0  # widest step that is resampled, in finest steps: 1 and 5 mm are one protocol, more is a gap
_EVEN_OUT = "export one acquisition, or resample them with reading.allow_uneven=true"
_PAUSE_S = 1800.0  # no series takes a break of half an hour: what comes after it is another acquisition
_DAY_S = 86400.0
_JITTER = 0.005  # share by which a measured quantity may differ within an acquisition
_TIME_SERIES = 10  # volumes of one acquisition from which on it is a time series

Digest = Callable[["Slice"], bytes]
"""Hash of a slice's stored numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """One slice or frame: where it lies and how its stored numbers become values."""

    file: int
    """Index of its file in the series."""
    frame: int
    """Index of its frame in the file."""
    number: int
    """Order as stored: only used where geometry is assumed."""
    shape: tuple[int, int]
    """Rows, columns."""
    position: tuple[float, ...] | None
    """LPS mm of the centre of the first pixel."""
    orientation: tuple[float, ...] | None
    """Direction along a row (growing column), then along a column (growing row)."""
    spacing: tuple[float, ...] | None
    """Millimetres between rows, then between columns."""
    slope: float = 1.0
    intercept: float = 0.0
    traits: tuple[object, ...] = ()
    """Values that identify its acquisition: echo, kernel, b-value and others
    (`traits.acquisition_traits`)."""
    times: tuple[object, ...] = ()
    """Values that may distinguish repetitions at one place (`traits.repetition_traits`); None where
    a file does not say."""
    label: Label = NO_LABEL
    """Its contrast and kind."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stack:
    """Slices of one volume, in order."""

    slices: tuple[Slice, ...]
    depths: tuple[int, ...]
    """Index k of each slice; consecutive unless slices are missing and that was allowed."""
    affine: np.ndarray
    """[4, 4]: (column, row, k, 1) to RAS mm; keeps the shear of a tilted gantry."""
    notes: frozenset[str]
    places: tuple[float, ...] | None = None
    """Position of each slice of an uneven stack on the resampled grid, in steps of the affine; None
    for an even stack."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices as they are read, before an uneven stack is resampled."""
        rows, columns = self.slices[0].shape
        return columns, rows, self.depths[-1] + 1

    @property
    def grid_shape(self) -> tuple[int, int, int]:
        """Columns, rows, slices of the volume."""
        columns, rows, depth = self.shape
        return columns, rows, depth if self.places is None else round(self.places[-1]) + 1


def arrange(slices: Sequence[Slice], settings: ReadingSettings, digest: Digest | None = None) -> tuple[Stack, ...]:
    """The volumes that a series holds: one, or one for each echo, reconstruction or time point.

    Args:
        slices: all slices of the series.
        settings: opt-in repairs.
        digest: tells whether two slices at one place are copies; without it they are not.

    Raises:
        VolumeError: `too_few_slices`, `missing_position`, `missing_orientation`, `bad_orientation`,
            `bad_spacing`, `mixed_geometry`, `mixed_acquisitions`, `degenerate_geometry`,
            `duplicate_positions`, `missing_slices` or `nonuniform_spacing`.
    """
    acquisitions = separate(slices)
    stacks: list[Stack] = []
    failed: dict[int, VolumeError] = {}
    for n, acquisition in enumerate(acquisitions):
        try:
            stacks += _arrange_one(acquisition, settings, digest)
        except VolumeError as error:
            failed[n] = error
    if failed:
        largest = max(range(len(acquisitions)), key=lambda n: (len(acquisitions[n]), n not in failed))
        if largest in failed:
            raise _of_several(failed[largest], acquisitions, largest)
    notes = {"split_series"} if len(acquisitions) - len(failed) > 1 else set()
    notes |= {"dropped_acquisition"} if failed else set()
    return tuple(replace(stack, notes=stack.notes | notes) for stack in stacks)


def _of_several(error: VolumeError, acquisitions: list[list[Slice]], which: int) -> VolumeError:
    """The error of one acquisition, saying that the series holds several."""
    if len(acquisitions) == 1:
        return error
    sizes = " + ".join(str(len(a)) for a in acquisitions[:6])
    everything = [s for acquisition in acquisitions for s in acquisition]
    if error.reason in ("missing_slices", "nonuniform_spacing", "too_few_slices") and _distinct(everything):
        sentence = (
            f"its {len(everything)} slices are of {len(acquisitions)} acquisitions ({sizes} slices, by echo, kernel, kind or time) "
            "that do not make a volume each: export them apart"
        )
        return VolumeError("mixed_acquisitions", sentence)
    largest = len(acquisitions[which])
    sentence = (
        f"{len(acquisitions)} acquisitions ({sizes} slices) in one series; of the one with {largest}: {error.sentence}"
    )
    return VolumeError(error.reason, sentence)


def _distinct(slices: Sequence[Slice]) -> bool:
    """True if no two slices state the same position."""
    return len({s.position for s in slices}) == len(slices)


def separate(slices: Sequence[Slice]) -> list[list[Slice]]:
    """The slices of each acquisition: those that agree in everything that names one.

    A trait with a value of its own for nearly each slice (a time, a counter that an anonymiser
    wrote anew) names none.
    """
    width = max((len(s.traits) for s in slices), default=0)
    columns = [_filled([s.traits[c] if c < len(s.traits) else None for s in slices]) for c in range(width)]
    for c in MEASURED:
        if c < width:
            columns[c] = _steadied(columns[c])
    columns += [_sessions(slices), _alternating(slices)]
    telling = [column for column in columns if 1 < len(set(column)) <= len(slices) / 2]
    groups: dict[tuple, list[Slice]] = defaultdict(list)
    for n, s in enumerate(slices):
        groups[tuple(column[n] for column in telling)].append(s)
    return [groups[key] for key in sorted(groups, key=_sortable)]


def _filled(values: list[object]) -> list[object]:
    """The values; where only one is known, a slice that states none is taken to have it."""
    known = {v for v in values if v is not None}
    return [next(iter(known))] * len(values) if len(known) == 1 else values


def _steadied(values: list[object]) -> list[object]:
    """Measured numbers with those that are half a percent apart made equal."""
    known = sorted({v for v in values if isinstance(v, float)})
    same: dict[object, object] = {}
    for below, v in zip([None, *known], known, strict=False):
        same[v] = same[below] if below is not None and abs(v - below) <= _JITTER * abs(v) else v
    return [same.get(v, v) for v in values]


def _sessions(slices: Sequence[Slice]) -> list[object]:
    """A number for each slice that grows after every pause of half an hour in the times of
    acquisition.

    Without dates the times lie on a circle, so that a scan may run past midnight; without times,
    dates must be two days apart.
    """
    moments = [_moment(s.times) for s in slices]
    dated = all(date is not None for date, _ in moments)
    timed = all(seconds is not None for _, seconds in moments)
    if not (dated or timed):
        return [None] * len(slices)
    at = [(_DAY_S * (date or 0) if dated else 0.0) + (seconds or 0.0 if timed else 0.0) for date, seconds in moments]
    known = sorted(set(at))
    pause = _PAUSE_S if timed else 1.5 * _DAY_S
    starts = [b for a, b in pairwise(known) if b - a > pause]
    if not dated and known[0] + _DAY_S - known[-1] <= pause:  # the first hours belong to the evening before
        return [sum(t >= start for start in starts) % max(len(starts), 1) for t in at]
    return [sum(t >= start for start in starts) for t in at]


def _moment(times: Sequence[object]) -> tuple[int | None, float | None]:
    """The day (a whole number that grows by one a day) and the second of the day of an acquisition,
    None where not stated."""
    time, date = (times[n] if len(times) > n else None for n in (ACQUISITION_TIME, ACQUISITION_DATE))
    digits = f"{time:.2f}" if isinstance(time, float) else str(time or "")
    whole = digits.partition(".")[0]
    seconds = None
    if whole.isdigit() and len(whole) <= 14:
        clock = whole[-6:].zfill(6)
        seconds = 3600.0 * int(clock[:2]) + 60 * int(clock[2:4]) + int(clock[4:])
        date = whole[:-6] if len(whole) == 14 else date
    text = f"{date:.0f}" if isinstance(date, float) else str(date or "")
    try:
        day = datetime.strptime(text, "%Y%m%d").toordinal()
    except ValueError:
        day = None
    return day, seconds


def _alternating(slices: Sequence[Slice]) -> list[object]:
    """The acquisition number where neighbours along the normal alternate in it, else nothing.

    Numbers that change from block to block, or with every slice, are those of one sequential scan.
    """
    numbers = [s.times[ACQUISITION_NUMBER] if len(s.times) > ACQUISITION_NUMBER else None for s in slices]
    nothing: list[object] = [None] * len(slices)
    if len(set(numbers)) < 2 or None in numbers or any(s.position is None or s.orientation is None for s in slices):
        return nothing
    axes = np.array(slices[0].orientation, np.float64).reshape(2, 3)
    along = np.array([s.position for s in slices]) @ np.cross(axes[0], axes[1])
    if not _distinct(slices):
        return nothing
    order = np.argsort(along, kind="stable")
    changes = sum(numbers[a] != numbers[b] for a, b in pairwise(order))
    return list(numbers) if changes >= 0.8 * (len(slices) - 1) else nothing


def _arrange_one(slices: Sequence[Slice], settings: ReadingSettings, digest: Digest | None) -> list[Stack]:
    """The volumes of one acquisition: one, or one a time point."""
    if settings.assume_geometry and all(s.position is None for s in slices):
        return [_assume(slices, settings.assume_geometry)]
    kept = _majority(slices)
    notes = {"dropped_minority_geometry"} if len(kept) < len(slices) else set()
    first = kept[0]
    if first.position is None:
        sentence = f"the slices do not say where they lie: export them again, or state it with {ASSUME_GEOMETRY}"
        raise VolumeError("missing_position", sentence)
    if first.orientation is None:
        raise VolumeError("missing_orientation", "the slices do not say how they are turned: export them again")
    axes, pixel = _plane(first)
    _check_number(len(kept))
    points, copies = _time_points(kept, np.cross(axes[0], axes[1]), digest)
    notes |= {"duplicate_files"} if copies else set()
    notes |= {"time_point"} if len(points) > 1 else set()
    notes |= {"time_series"} if len(points) >= _TIME_SERIES else set()
    return [_stack(point, axes, pixel, notes, settings) for point in points]


def _check_number(slices: int) -> None:
    if slices < _LEAST_SLICES:
        raise VolumeError("too_few_slices", f"{slices} slice(s) of one geometry, at least {_LEAST_SLICES} are needed")


def _assume(slices: Sequence[Slice], assumed: AssumedGeometry) -> Stack:
    """All slices in stored order on the grid that the settings state."""
    if len({s.shape for s in slices}) > 1:
        raise VolumeError("mixed_geometry", "slices have different sizes, so no geometry can be assumed for them")
    _check_number(len(slices))
    x, y, z = assumed.spacing
    return Stack(
        slices=tuple(sorted(slices, key=lambda s: (s.number, s.file, s.frame))),
        depths=tuple(range(len(slices))),
        affine=affine_from_axes(assumed.axes, (x, y, z)),
        notes=frozenset({"assumed_geometry"}),
    )


def _majority(slices: Sequence[Slice]) -> list[Slice]:
    """The slices that share one size, orientation and spacing, if they are at least 80 %."""
    groups: list[list[Slice]] = []
    for s in slices:
        home = next((g for g in groups if _alike(g[0], s)), None)
        if home is None:
            groups.append(home := [])
        home.append(s)
    groups.sort(key=len)
    if len(groups[-1]) < _MAJORITY * len(slices):
        sizes = " + ".join(str(len(g)) for g in reversed(groups[-4:]))
        sentence = f"slices of {len(groups)} geometries ({sizes}) in one series: export them apart"
        raise VolumeError("mixed_geometry", sentence)
    return groups[-1]


def _alike(a: Slice, b: Slice) -> bool:
    return (
        a.shape == b.shape
        and (a.position is None) == (b.position is None)
        and _close(a.orientation, b.orientation, 1e-3)
        and _close(a.spacing, b.spacing, 1e-3)
    )


def _close(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return a == b or all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def _plane(first: Slice) -> tuple[np.ndarray, tuple[float, float]]:
    """Unit vectors along a row and along a column [2, 3], and mm between rows and columns;
    checked."""
    axes = np.array(first.orientation, np.float64).reshape(2, 3)
    length = np.sqrt((axes**2).sum(axis=1))
    if not np.isfinite(axes).all() or (np.abs(length - 1) > 0.01).any() or abs(axes[0] @ axes[1]) > 0.01:
        sentence = "row and column directions are not perpendicular unit vectors: export it again"
        raise VolumeError("bad_orientation", sentence)
    if first.spacing is None or not all(np.isfinite(s) and 0 < s < 100 for s in first.spacing):
        raise VolumeError("bad_spacing", "the distance between pixels is missing or impossible: export it again")
    between_rows, between_columns = first.spacing
    return axes / length[:, None], (between_rows, between_columns)


def _time_points(slices: list[Slice], normal: np.ndarray, digest: Digest | None) -> tuple[list[list[Slice]], bool]:
    """The slices of each time point, in order of time, and whether copies were left out.

    Where every place is taken equally often and something in the headers tells the repetitions
    apart, each is a volume.
    """
    place = _places(slices, normal)
    taken = np.bincount(place)
    if len(taken) == 1:
        spread = float(np.ptp([s.position for s in slices if s.position is not None], axis=0).max())
        if spread > _SAME_PLACE_MM:
            sentence = "the slices lie beside each other in one plane: they are no volume"
            raise VolumeError("degenerate_geometry", sentence)
        raise VolumeError(
            "duplicate_positions",
            f"all {len(slices)} slices state one position: if each picture holds many slices beside each other (a mosaic), "
            "convert the series with dcm2niix, else export it again",
        )
    if (taken == 1).all():
        return [slices], False
    points = _repetitions(slices, place, taken)
    if points:
        return points, False
    single = _without_copies(slices, place, digest)
    if len(single) < len(slices):
        return _time_points(single, normal, None)[0], True
    twice = int((taken > 1).sum())
    sentence = f"{twice} of {len(taken)} positions are taken more than once and nothing tells the slices apart: export it again"
    raise VolumeError("duplicate_positions", sentence)


def _places(slices: Sequence[Slice], normal: np.ndarray) -> np.ndarray:
    """Index of the place along the normal that each slice takes."""
    along = np.array([s.position for s in slices]) @ normal
    order = np.argsort(along, kind="stable")
    place = np.empty(len(order), np.int64)
    place[order] = np.concatenate([[0], np.cumsum(np.diff(along[order]) > _SAME_PLACE_MM)])
    return place


def _repetitions(slices: list[Slice], place: np.ndarray, taken: np.ndarray) -> list[list[Slice]]:
    """The repetitions that one column of times, or two together, tell apart; empty if none does."""
    if (taken != taken[0]).any():
        return []
    width = max(len(s.times) for s in slices)
    times = [s.times + (None,) * (width - len(s.times)) for s in slices]
    for columns in [(c,) for c in range(width)] + list(combinations(range(width), 2)):
        groups: dict[tuple, list[int]] = defaultdict(list)
        for n, values in enumerate(times):
            groups[tuple(values[c] for c in columns)].append(n)
        if len(groups) == taken[0] and all(len(set(place[g])) == len(g) == len(taken) for g in groups.values()):
            return [[slices[n] for n in groups[key]] for key in sorted(groups, key=_sortable)]
    return []


def _without_copies(slices: list[Slice], place: np.ndarray, digest: Digest | None) -> list[Slice]:
    """The slices without those that repeat the numbers of another one at their place."""
    if digest is None:
        return slices
    shared = {p for p, count in Counter(place.tolist()).items() if count > 1}
    seen: dict[tuple, Slice] = {}
    for n, s in enumerate(slices):
        p = int(place[n])
        seen.setdefault((p, digest(s)) if p in shared else (p, n), s)
    return list(seen.values())


def _sortable(key: tuple) -> tuple:
    """Numbers by value (2 before 10), texts behind them."""
    flat = [v for value in key for v in (value if isinstance(value, tuple) else (value,))]
    return tuple((0, float(v), "") if isinstance(v, int | float) else (1, 0.0, str(v)) for v in flat)


def _stack(
    slices: list[Slice],
    axes: np.ndarray,
    pixel: tuple[float, float],
    notes: set[str],
    settings: ReadingSettings,
) -> Stack:
    """One volume: evenly spaced, or where that is allowed resampled to be so.

    Raises:
        VolumeError: `too_few_slices`, `nonuniform_spacing`, `missing_slices` or
            `degenerate_geometry`.
    """
    _check_number(len(slices))
    positions = np.array([s.position for s in slices])
    along = positions @ np.cross(axes[0], axes[1])
    order = np.argsort(along, kind="stable")
    positions, along = positions[order], along[order]
    ordered = [slices[n] for n in order]
    normal = np.cross(axes[0], axes[1])
    try:
        depths: np.ndarray = _depths(np.diff(along), settings.allow_gaps)
        _check_drift(positions, depths, normal)
    except VolumeError as error:
        if error.reason != "nonuniform_spacing" or not settings.allow_uneven:
            raise
        depths = _uneven_depths(along)
        notes = notes | {"allow_uneven"}
    stride = (positions[-1] - positions[0]) / depths[-1]
    _check_line(positions, depths, axes, min(pixel))
    return Stack(
        slices=tuple(ordered),
        depths=tuple(range(len(ordered))) if "allow_uneven" in notes else tuple(depths.tolist()),
        affine=LPS_TO_RAS @ _affine(axes, pixel, stride, positions[0]),
        notes=frozenset(notes | _notes_of_grid(len(ordered), depths, stride, normal)),
        places=tuple(depths.tolist()) if "allow_uneven" in notes else None,
    )


def _affine(axes: np.ndarray, pixel: tuple[float, float], stride: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """[4, 4], (column, row, slice, 1) to LPS mm."""
    affine = np.eye(4)
    between_rows, between_columns = pixel
    affine[:3, 0] = axes[0] * between_columns
    affine[:3, 1] = axes[1] * between_rows
    affine[:3, 2] = stride
    affine[:3, 3] = origin
    return affine


def _notes_of_grid(slices: int, depths: np.ndarray, stride: np.ndarray, normal: np.ndarray) -> set[str]:
    notes = {"allow_gaps"} if depths.dtype.kind == "i" and slices <= depths[-1] else set()
    along = stride @ normal
    return notes | ({"gantry_tilt"} if np.linalg.norm(stride - along * normal) > 0.005 * along else set())


def _check_drift(positions: np.ndarray, depths: np.ndarray, normal: np.ndarray) -> None:
    """Refuses steps that are each within tolerance and add up to another grid."""
    stride = (positions[-1] - positions[0]) / depths[-1]
    step = float(np.median(np.diff(positions @ normal)))
    away = positions - positions[0] - depths[:, None] * stride
    if np.abs(away @ normal).max() > max(0.5 * step, _STEP_SHARE * step, _STEP_MM):
        raise VolumeError(
            "nonuniform_spacing", f"the distance between slices drifts away from {step:.3f} mm: {_EVEN_OUT}"
        )


def _check_line(positions: np.ndarray, depths: np.ndarray, axes: np.ndarray, pixel: float) -> None:
    """Refuses slices that do not lie behind each other on one straight line."""
    away = positions - positions[0] - depths[:, None] * (positions[-1] - positions[0]) / depths[-1]
    step = float(np.linalg.norm(positions[-1] - positions[0]) / depths[-1])
    if np.abs(away @ axes.T).max() > max(pixel, _STEP_SHARE * step, _STEP_MM):
        sentence = "the slices do not lie behind each other on one line: they are no volume"
        raise VolumeError("degenerate_geometry", sentence)


def _uneven_depths(along: np.ndarray) -> np.ndarray:
    """Place slices on an even grid of about the finest distance: float [n], from 0.

    Raises:
        VolumeError: `nonuniform_spacing` if a step is so wide that slices must be missing in it.
    """
    steps = np.diff(along)
    fine = float(np.quantile(steps, 0.1, method="lower"))
    if steps.max() > _WIDEST * fine or steps.min() < 0.5 * fine:
        raise VolumeError(
            "nonuniform_spacing",
            f"steps between slices run from {steps.min():.2f} to {steps.max():.2f} mm, too far apart to resample: export one acquisition",
        )
    length = float(along[-1] - along[0])
    return (along - along[0]) / (length / max(round(length / fine), 1))


def _depths(steps: np.ndarray, allow_gaps: bool) -> np.ndarray:
    """Index k of each slice, from the steps between them.

    Args:
        steps: [n - 1], mm, not negative.
        allow_gaps: missing slices leave numbers out instead of raising.
    """
    step = float(np.median(steps))
    times = np.maximum(np.rint(steps / step), 1)
    odd = np.abs(steps - times * step) > max(_STEP_SHARE * step, _STEP_MM)
    gaps = times > 1
    if odd.any() or gaps.mean() > 0.2:
        seen = Counter(np.round(steps, 2).tolist()).most_common(3)
        found = ", ".join(f"{count} x {mm:.2f} mm" for mm, count in seen)
        raise VolumeError("nonuniform_spacing", f"steps between slices differ ({found}): {_EVEN_OUT}")
    if gaps.any() and not allow_gaps:
        missing = int((times - 1).sum())
        raise VolumeError(
            "missing_slices",
            f"slices are {step:.2f} mm apart and {steps.max():.2f} mm at the widest: {missing} slice(s) missing. "
            "Export the series again, or fill them with reading.allow_gaps=true",
        )
    return np.concatenate([[0], np.cumsum(times)]).astype(np.int64)


def fill_missing(out: np.ndarray, there: Sequence[int]) -> list[int]:
    """Fills slices that are not there by linear interpolation between their neighbours, in place.

    Args:
        out: float32 [slice, row, column].
        there: which slices hold values, the first and the last among them, ascending.

    Returns:
        The slices that were filled.
    """
    missing = []
    for below, above in pairwise(there):
        for k in range(below + 1, above):
            out[k] = out[below] + (out[above] - out[below]) * np.float32((k - below) / (above - below))
            missing.append(k)
    return missing


def resample_evenly(
    values: np.ndarray, invalid: np.ndarray | None, places: Sequence[float]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Slices at uneven places on an even grid, linearly between neighbours; a slice that lies on
    the grid stays as it is.

    Args:
        values: float32 [slice, row, column].
        invalid: bool of the same shape, or None. What is interpolated from an invalid voxel is
            invalid.
        places: where each slice lies, in steps of the grid, ascending from 0 to a whole number.

    Returns:
        Values and invalid voxels on the grid.
    """
    count = round(places[-1]) + 1
    known = np.asarray(places, np.float64)
    out = np.empty((count, *values.shape[1:]), np.float32)
    marked = None if invalid is None else np.zeros(out.shape, bool)
    for k in range(count):
        above = min(max(int(np.searchsorted(known, k)), 1), len(known) - 1)
        below = above - 1
        weight = float(np.clip((k - known[below]) / (known[above] - known[below]), 0, 1))
        weight = float(round(weight)) if abs(weight - round(weight)) < 1e-4 else weight
        out[k] = values[below] * np.float32(1 - weight) + values[above] * np.float32(weight)
        if marked is not None and invalid is not None:
            marked[k] = (invalid[below] if weight < 1 else False) | (invalid[above] if weight > 0 else False)
    return out, marked
