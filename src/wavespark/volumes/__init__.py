"""File or folder to volumes: NIfTI, DICOM and others, read safely, checked, and named only by keyed hashes."""

from wavespark.volumes.orientation import affine_from_axes, axes_to_ras, axis_codes, is_usable, spacing_of, to_ras
from wavespark.volumes.volume import CONTRASTS, MODALITIES, Found, Refusal, Volume, content_hash

__all__ = [
    "CONTRASTS",
    "MODALITIES",
    "Found",
    "Refusal",
    "Volume",
    "affine_from_axes",
    "axes_to_ras",
    "axis_codes",
    "content_hash",
    "is_usable",
    "spacing_of",
    "to_ras",
]
