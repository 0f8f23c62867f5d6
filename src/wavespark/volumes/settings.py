"""Reading settings: limits and opt-in repairs.

Each repair is recorded in the notes of the volumes that needed it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from wavespark.errors import SettingsError
from wavespark.volumes.contrasts import CONTRASTS
from wavespark.volumes.orientation import affine_from_axes
from wavespark.volumes.volume import MODALITIES

ASSUME_GEOMETRY = "'reading.assume_geometry={spacing=[MM,MM,MM],axes=\"LPS\"}'"
"""Setting of `prepare` that states a geometry, as typed in a shell, with blanks for the spacing: a
copied number would be a wrong one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AssumedGeometry:
    """The grid to assume for a DICOM series that states no position or orientation."""

    spacing: Sequence[float]
    """Millimetres per voxel along columns, rows and slices (or frames) as stored."""
    axes: str = "LPS"
    """Directions in which columns, rows and slices grow, for example `LPS` for an upright axial
    series stored from the feet up."""

    def __post_init__(self) -> None:
        try:
            x, y, z = (float(s) for s in self.spacing)
            affine_from_axes(self.axes, (x, y, z))
        except (TypeError, ValueError):
            raise SettingsError(
                "assume_geometry needs spacing = [mm, mm, mm], all positive, and axes = three letters, one each of "
                f"R/L, A/P, S/I, for example 'LPS'; got spacing {self.spacing!r} and axes {self.axes!r}"
            ) from None
        object.__setattr__(self, "spacing", (x, y, z))


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadingSettings:
    """Limits and opt-in repairs of reading."""

    max_voxels: int = 2**28
    """A volume that declares more voxels is refused before anything is allocated."""
    allow_gaps: bool = False
    """Missing slices are filled by linear interpolation and marked as not valid, instead of
    refusing the series."""
    allow_uneven: bool = False
    """DICOM slices at several distances (thin skull base, thick above) are resampled to an even
    grid of the finest distance, linearly
    along the normal, instead of refusing the series."""
    assume_geometry: AssumedGeometry | None = None
    """Geometry to assume for a DICOM series that states none, instead of refusing it."""
    hu_already_applied: bool = False
    """CT whose stored values reach below -500 while the rescale would subtract 500 or more is taken
    as HU already."""
    modality: str | None = None
    """Overrides what the files say: `MR` or `CT`."""
    contrast: str | None = None
    """Overrides what the files say: one of `CONTRASTS`."""

    def __post_init__(self) -> None:
        if self.max_voxels < 1:
            raise SettingsError(f"max_voxels must be at least 1, got {self.max_voxels}")
        if self.modality not in (None, *MODALITIES):
            raise SettingsError(f"modality must be one of {', '.join(MODALITIES)}, got {self.modality!r}")
        if self.contrast not in (None, *CONTRASTS):
            raise SettingsError(f"contrast must be one of {', '.join(CONTRASTS)}, got {self.contrast!r}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Override:
    """Values that the user states for one input; they win over the file, its name and
    `ReadingSettings`."""

    modality: str | None = None
    """`MR` or `CT`."""
    contrast: str | None = None
    """One of `CONTRASTS`.

    A structural contrast also takes back the notes that call the volume a map, phase or functional.
    """
    patient: str | None = None
    """Any text: inputs with the same text share a pseudonym. Private."""
    session: str | None = None
    """Any text, of one patient. Private."""

    def __post_init__(self) -> None:
        if self.modality not in (None, *MODALITIES):
            raise SettingsError(f"modality must be one of {', '.join(MODALITIES)}, got {self.modality!r}")
        if self.contrast not in (None, *CONTRASTS):
            raise SettingsError(f"contrast must be one of {', '.join(CONTRASTS)}, got {self.contrast!r}")
        if self.patient == "" or self.session == "":
            raise SettingsError("patient and session must not be empty: leave the cell out to keep what the file says")
