"""Anatomical planes by radiological convention.

Voxel axes D, H, W run towards the patient's right, anterior and superior (RAS). On axial and
coronal planes the patient's right is on the left of the picture; on sagittal planes anterior is on
the left; anterior (axial) or superior is up.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Plane:
    """One of the three anatomical planes."""

    name: str
    axis: int
    """Voxel axis perpendicular to the plane."""
    left: str
    """Letter of the anatomical direction at the left edge of the picture."""
    right: str
    top: str
    bottom: str

    def cut(self, volume_DHW: npt.NDArray, position: int) -> npt.NDArray:
        """Return the slice at `position` as [rows, columns] of a picture: rows from the top,
        columns from the left."""
        return np.take(volume_DHW, position, axis=self.axis).T[::-1, ::-1]

    def aspect(self, shape: tuple[int, ...], spacing: tuple[float, float, float]) -> float:
        """Return width over height in mm of a slice of a volume of this shape."""
        across, up = (a for a in range(3) if a != self.axis)
        return shape[across] * spacing[across] / (shape[up] * spacing[up])


PLANES = (
    Plane("axial", 2, left="R", right="L", top="A", bottom="P"),
    Plane("coronal", 1, left="R", right="L", top="S", bottom="I"),
    Plane("sagittal", 0, left="A", right="P", top="S", bottom="I"),
)
