"""Results of reading: volumes and refusals.

Index order is (i, j, k), the order of the affine's columns; millimetres are RAS (right, anterior,
superior positive).
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.contrasts import CONTRASTS
from wavespark.volumes.orientation import spacing_of

MODALITIES = ("MR", "CT")
"""The kinds of volume: a stem each."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Volume:
    """Voxels with their place in the patient, their kind and the names that may be shown."""

    voxels: np.ndarray
    """float32 [C, i, j, k]: values of the modality (HU for CT), finite everywhere."""
    affine: np.ndarray
    """float64 [4, 4]: index (i, j, k, 1) to RAS mm, finite and invertible."""
    modality: str
    """`MR` or `CT`."""
    contrast: str | None
    """One of `CONTRASTS`, or None where nothing tells."""
    id: str
    """Keyed hash of the source (its relative path or SeriesInstanceUID): may be shown."""
    patient: str
    """Keyed hash of the patient, or of the source where no patient is known: may be shown."""
    session: str | None = None
    """Keyed hash of the patient's session (a study, a BIDS `ses-`), None where it is not known: may
    be shown."""
    content: str
    """SHA-256 of what the volume holds, see `content_hash`: keys draws and splits, whatever the
    secret."""
    notes: tuple[str, ...] = ()
    """Reason codes of what was odd but usable, sorted."""
    valid: np.ndarray | None = None
    """bool [i, j, k], False where the scanner padded; None if every voxel was measured."""

    def __post_init__(self) -> None:
        if self.voxels.ndim != 4 or self.voxels.dtype != np.float32:
            got = f"{self.voxels.dtype} {list(self.voxels.shape)}"
            raise VolumeError("not_3d", f"voxels must be float32 [C, i, j, k], got {got}")
        if self.affine.shape != (4, 4):
            raise VolumeError("bad_affine", f"the affine must be 4 x 4, got {list(self.affine.shape)}")
        if self.modality not in MODALITIES:
            raise VolumeError("not_an_image_volume", f"the modality must be one of {', '.join(MODALITIES)}")
        if self.contrast not in (None, *CONTRASTS):
            raise VolumeError("not_an_image_volume", f"the contrast must be one of {', '.join(CONTRASTS)}")
        if self.valid is not None and self.valid.shape != self.voxels.shape[1:]:
            grids = f"{list(self.valid.shape)} and {list(self.voxels.shape[1:])}"
            raise VolumeError("not_3d", f"valid and voxels must have one grid, got {grids}")

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Millimetres per voxel along i, j, k."""
        return spacing_of(self.affine)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.voxels.shape[1:]))
        step = " x ".join(f"{s:.4g}" for s in self.spacing)
        return f"<Volume {self.id}: {self.modality} {self.contrast or '-'}, {size} @ {step} mm>"


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """One input that was left out, and why."""

    source_id: str
    """Keyed hash of the source: may be shown."""
    reason: str
    """A reason code, for example `missing_slices`."""
    sentence: str
    """Problem, numbers and way out; quotes nothing from the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """All volumes and refusals of a path."""

    volumes: tuple[Volume, ...] = ()
    refused: tuple[Refusal, ...] = ()


def content_hash(voxels: np.ndarray, affine: np.ndarray) -> str:
    """SHA-256, hexadecimal, over the shape, the affine (rounded to 1e-4 mm) and the voxels (i
    fastest, as in files).

    Args:
        voxels: float32 [C, i, j, k].
        affine: [4, 4].
    """
    rounded = np.round(np.asarray(affine, np.float64), 4) + 0.0  # + 0.0 turns -0.0 into 0.0: same place, same bytes
    digest = hashlib.sha256(np.array(voxels.shape, "<i8").tobytes() + rounded.astype("<f8").tobytes())
    for channel in voxels:
        digest.update(np.ascontiguousarray(channel.T, "<f4").data.cast("B"))
    return digest.hexdigest()
