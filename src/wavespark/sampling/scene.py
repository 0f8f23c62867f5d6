"""A window with everything that must move with it: label maps and points.

Axes: C channels, D H W voxels (R, A, S).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from wavespark.errors import ShapeError
from wavespark.sampling.lateral import NO_SIDES, Sides
from wavespark.shapes import Triple

LEFT_RIGHT = 0
"""The axis of prepared volumes that runs from left to right."""


def _no_points() -> np.ndarray:
    return np.empty((0, 3), np.float32)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Scene:
    """Voxels, and what is known about them.

    Raises:
        ShapeError: if a map has another grid, or points are not [N, 3].
    """

    voxels: np.ndarray
    """float32 [C, D, H, W]."""
    maps: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Whole numbers or booleans [D, H, W] by name: never interpolated; 0 lies outside."""
    points: np.ndarray = field(default_factory=_no_points)
    """float [N, 3], voxel index along D, H, W."""
    mirrored: bool = False
    """True if left and right have changed places: labels of the whole volume must follow, see
    `Sides.columns`."""

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or any(m.shape != self.size for m in self.maps.values()):
            raise ShapeError(
                f"voxels must be [C, D, H, W] and maps [D, H, W], got {self.voxels.shape} and {[m.shape for m in self.maps.values()]}"
            )
        if self.points.ndim != 2 or self.points.shape[1] != 3:
            raise ShapeError(f"points must be [N, 3], got {list(self.points.shape)}")

    @property
    def size(self) -> Triple:
        """Voxels along D, H, W."""
        d, h, w = self.voxels.shape[1:]
        return d, h, w


def flipped(scene: Scene, axes: tuple[int, ...], sides: Sides = NO_SIDES) -> Scene:
    """The scene mirrored along some of its axes (0, 1, 2); across left and right, the values of
    paired labels change places."""
    if not axes:
        return scene
    lateral = LEFT_RIGHT in axes
    maps = {name: np.flip(values, axes) for name, values in scene.maps.items()}
    if lateral:
        maps = {name: sides.labels(values) for name, values in maps.items()}
    points = scene.points.copy()
    for axis in axes:
        points[:, axis] = scene.size[axis] - 1 - points[:, axis]
    return replace(
        scene,
        voxels=np.ascontiguousarray(np.flip(scene.voxels, tuple(a + 1 for a in axes))),
        maps={name: np.ascontiguousarray(values) for name, values in maps.items()},
        points=points,
        mirrored=scene.mirrored != lateral,
    )


def surrounded(voxels: np.ndarray, margin: Sequence[tuple[int, int]]) -> np.ndarray:
    """Voxels [C, D, H, W] in a larger box; around them lies each channel's lowest value.

    Args:
        voxels: what lies inside.
        margin: voxels before and after it along D, H, W.
    """
    size = [n + a + b for n, (a, b) in zip(voxels.shape[1:], margin, strict=True)]
    out = np.broadcast_to(voxels.min(axis=(1, 2, 3), keepdims=True), (len(voxels), *size)).copy()
    out[(slice(None), *(slice(a, n - b) for n, (a, b) in zip(size, margin, strict=True)))] = voxels
    return out


def padded(scene: Scene, before: Triple, after: Triple) -> Scene:
    """The scene in a larger window: around it lie each channel's lowest value, and 0 in the
    maps."""
    margin = list(zip(before, after, strict=True))
    return replace(
        scene,
        voxels=surrounded(scene.voxels, margin),
        maps={name: np.pad(values, margin) for name, values in scene.maps.items()},
        points=scene.points + np.array(before, scene.points.dtype),
    )
