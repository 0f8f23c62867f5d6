"""Which volumes are fit for pre-training: images of heads, no label maps, computed maps or other
parts of the body.

Decisions rest on values, size and shape, because names of files say little. Thresholds were
measured on heads of 100 people (T1, T2, FLAIR, CT; whole, brain only, slabs of 18 mm, slices of 5
to 7 mm), 56 label maps, tissue probability maps, a map of t-values and a chest CT;
docs/how-to/prepare.md lists them with what they cannot tell.
"""

from typing import Any

import numpy as np

from wavespark.errors import VolumeError
from wavespark.prepare.skull import shows_a_skull
from wavespark.volumes import NOT_FOR_PRETRAINING, NOTES_NOT_FOR_PRETRAINING, STRUCTURAL, Volume, spacing_of

WAY_OUT = "A row of --table with its contrast, or --keep-everything, keeps it"

_SAMPLE = 1 << 18
"""Values looked at, evenly spread."""
LABEL_VALUES = 2048
"""Most distinct values of a label map (atlases have up to about 1,000 regions)."""
EQUAL_NEIGHBOURS = 0.35
"""Share of neighbouring voxels with one value, the three commonest values aside, from which on a
volume is a label map.
Measured: label maps 0.72 to 0.90 (0.4 where regions are five voxels across), images at most
0.11."""
_COPIED = 0.98
"""Share of equal voxels between two planes from which on one is a copy of the other: such pairs say
nothing."""
NEAR_ONE, NEAR_ZERO, BETWEEN = 0.08, 0.05, 0.45
"""Shares of the values that are not 0: least above 0.9 and below 0.1, and most between 0.25 and
0.75, of the maximum of
a probability map. Measured: maps of grey and white matter 0.12 and 0.19 above, 0.37 and 0.26
between; T1 0.00 to 0.03 above."""
_FULL_SCALES = (1.0, 100.0, 255.0)
"""Maxima of probability maps."""
MIXED_SIGNS = 0.1
"""Least share of either sign among the values of a statistics map that are not 0."""
RIM = 0.5
"""Standard deviations between rim and mean of a statistics map, at most.

A brain with mean 0 is darker at its rim.
"""
WIDEST_MM = 260.0
"""Median width, right to left, of a head's axial slices, at most.

Measured: heads 110 to 175 mm, a chest 292 mm.
"""
SMALLEST_MM, FINE_MM = 60.0, 0.6
"""Largest extent of an animal's body and voxel size with which such are scanned.

A newborn's brain is 75 mm or longer.
"""
ELONGATED = 3.0
"""Ratio of the first two principal spreads from which on something is a limb, spine or tail.

Heads with neck: at most 2.3.
"""
AIR_HU, AIR_ML, AIR_ML_WITH_SKULL = -600.0, 250.0, 800.0
"""Air inside the body in a CT, at most: sinuses and airways of a head hold less than 150 ml, lungs
litres."""
_FULL_SHARE = 0.9
"""Foreground that fills more of the volume than this has no shape to judge."""

NAMES = {
    "label_map": "label map(s), atlas(es) or mask(s)",
    "probability_map": "probability map(s)",
    "statistics_map": "statistics map(s)",
    "derived_map": "map(s) computed from images",
    "phase": "phase image(s) or field map(s)",
    "functional": "functional or perfusion volume(s)",
    "localizer": "localizer(s)",
    "time_series": "volume(s) of a time series",
    "not_a_head": "volume(s) that show no head",
    "duplicate": "duplicate(s): the same voxels at the same place under another name",
}
"""Reason codes of what is left out of pre-training, and what each means."""


def check_kind(volume: Volume, *, vouched: bool = False) -> None:
    """Check that a volume is an image that shows anatomy.

    Args:
        volume: as read.
        vouched: True if the user stated a contrast that shows anatomy; values are then not judged.

    Raises:
        VolumeError: with one of `NAMES` as reason.
    """
    notes = sorted(set(volume.notes) & NOTES_NOT_FOR_PRETRAINING)
    if notes:
        raise _left_out(notes[0], "its header, its sidecar or its name says so")
    if volume.contrast in NOT_FOR_PRETRAINING:
        raise _left_out("derived_map", f"its contrast is {volume.contrast}")
    if vouched:
        return
    voxels = volume.voxels[0]
    values = _sample(voxels)
    distinct = np.unique(values)
    if "few_distinct_values" in volume.notes:
        raise _left_out("label_map", f"it has {len(distinct)} distinct values: a label map or a mask, not an image")
    if len(distinct) <= LABEL_VALUES and (share := equal_neighbours(voxels)) >= EQUAL_NEIGHBOURS:
        raise _left_out(
            "label_map", f"{share:.0%} of its neighbouring voxels have one value: a label map, not an image"
        )
    if volume.modality != "MR" or volume.contrast in STRUCTURAL or np.mean(values == 0) < 0.2:
        return
    inside = values[values != 0]
    if _is_probability(inside):
        raise _left_out("probability_map", f"its values lie near 0 and near {inside.max():g}: shares, not intensities")
    if _has_mixed_signs(inside) and _rim_is_average(voxels):
        raise _left_out("statistics_map", "its values lie around 0 with both signs, and 0 outside: no intensities")


def check_head(
    voxels: np.ndarray, affine: np.ndarray, foreground: np.ndarray, modality: str, *, finest_mm: float
) -> None:
    """Check that size and shape of a volume may be those of a head. What they cannot tell passes.

    Args:
        voxels: float32 [D, H, W] along R, A, S; HU for CT.
        affine: [4, 4], index to RAS mm.
        foreground: bool [D, H, W], from `find_foreground`.
        modality: `MR` or `CT`.
        finest_mm: smallest voxel side with which it was acquired.

    Raises:
        VolumeError: `not_a_head`.
    """
    if not foreground.any() or foreground.mean() > _FULL_SHARE:
        return
    spacing = np.array(spacing_of(affine))
    extents = [_extent(np.any(foreground, axis=tuple(b for b in range(3) if b != a))) * spacing[a] for a in range(3)]
    if max(extents) < SMALLEST_MM and finest_mm <= FINE_MM:
        raise _left_out(
            "not_a_head",
            f"it is {max(extents):.0f} mm long in voxels of {finest_mm:.2g} mm: an animal or a specimen",
        )
    widths = [_extent(row) * spacing[0] for row in np.any(foreground, axis=1).T if row.any()]
    if np.median(widths) > WIDEST_MM:
        raise _left_out(
            "not_a_head", f"it is {np.median(widths):.0f} mm wide, and no head is wider than {WIDEST_MM:.0f} mm"
        )
    if _elongation(foreground, spacing) > ELONGATED:
        raise _left_out(
            "not_a_head", f"it is more than {ELONGATED:g} times as long as wide: a limb, a spine or an animal"
        )
    if modality == "CT":
        air = float((foreground & (voxels < AIR_HU)).sum()) * float(np.prod(spacing)) / 1000
        most = AIR_ML_WITH_SKULL if air > AIR_ML and shows_a_skull(voxels, affine) else AIR_ML
        if air > most:
            raise _left_out("not_a_head", f"it holds {air:.0f} ml of air, and a head at most {most:.0f} ml: a chest")


def equal_neighbours(voxels: np.ndarray) -> float:
    """Share of neighbouring voxels with one value, pairs of the three commonest values aside; the
    mean of the axes.

    Args:
        voxels: any numbers [D, H, W].
    """
    values, counts = np.unique(_sample(voxels), return_counts=True)
    common = values[np.argsort(-counts)[:3]]
    shares = []
    for axis in range(3):
        part = np.moveaxis(voxels, axis, 0)
        part = part[:, :: max(1, part.shape[1] // 48), :: max(1, part.shape[2] // 48)]
        rare = ~np.isin(part, common)
        pairs = rare[1:] | rare[:-1]
        in_plane = pairs.sum((1, 2))
        equal = (pairs & (part[1:] == part[:-1])).sum((1, 2))
        acquired = (in_plane > 0) & (equal <= _COPIED * in_plane)
        shares.append(float(equal[acquired].sum() / max(1, in_plane[acquired].sum())))
    return float(np.mean(shares))


def _left_out(reason: str, sentence: str) -> VolumeError:
    return VolumeError(reason, f"{sentence}. {WAY_OUT}")


def _sample(voxels: np.ndarray) -> np.ndarray:
    flat = voxels.T.ravel()
    return flat[:: max(1, flat.size // _SAMPLE)]


def _is_probability(inside: np.ndarray) -> bool:
    top = float(inside.max())
    if inside.min() < 0 or not any(0.98 * scale <= top <= 1.005 * scale for scale in _FULL_SCALES):
        return False
    near_one, near_zero = float(np.mean(inside > 0.9 * top)), float(np.mean(inside < 0.1 * top))
    between = float(np.mean((inside > 0.25 * top) & (inside < 0.75 * top)))
    return near_one >= NEAR_ONE and near_zero >= NEAR_ZERO and between <= BETWEEN


def _has_mixed_signs(inside: np.ndarray) -> bool:
    return min(float(np.mean(inside < 0)), float(np.mean(inside > 0))) >= MIXED_SIGNS


def _rim_is_average(voxels: np.ndarray) -> bool:
    from scipy import ndimage

    every = [max(1, n // 96) for n in voxels.shape]
    coarse = voxels[:: every[0], :: every[1], :: every[2]]
    filled = ndimage.binary_fill_holes(coarse != 0)
    rim = filled & ~ndimage.binary_erosion(filled, iterations=1) & (coarse != 0)
    inside = coarse[filled & (coarse != 0)]
    if not rim.any() or float(inside.std()) == 0:
        return False
    return abs(float(coarse[rim].mean() - inside.mean())) < RIM * float(inside.std())


def _extent(line: Any) -> int:
    hit = np.flatnonzero(line)
    return int(hit[-1] - hit[0] + 1)


def _elongation(foreground: np.ndarray, spacing: np.ndarray) -> float:
    every = [max(1, n // 64) for n in foreground.shape]
    places = np.argwhere(foreground[:: every[0], :: every[1], :: every[2]]) * (spacing * every)
    if len(places) < 8:
        return 0.0
    spread = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(places.T)), 1e-9))
    return float(spread[2] / spread[1])
