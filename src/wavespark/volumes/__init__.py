"""File or folder to volumes: NIfTI, DICOM and others, read safely, checked, and named only by keyed hashes."""

from wavespark.volumes.finding import find_sources
from wavespark.volumes.orientation import affine_from_axes, axes_to_ras, axis_codes, is_usable, spacing_of, to_ras
from wavespark.volumes.privacy import new_secret, patient_id, source_id
from wavespark.volumes.reading import read_source, read_volumes
from wavespark.volumes.settings import AssumedGeometry, ReadingSettings
from wavespark.volumes.source import Source
from wavespark.volumes.volume import CONTRASTS, MODALITIES, Found, Refusal, Volume, content_hash

__all__ = [
    "CONTRASTS",
    "MODALITIES",
    "AssumedGeometry",
    "Found",
    "ReadingSettings",
    "Refusal",
    "Source",
    "Volume",
    "affine_from_axes",
    "axes_to_ras",
    "axis_codes",
    "content_hash",
    "find_sources",
    "is_usable",
    "new_secret",
    "patient_id",
    "read_source",
    "read_volumes",
    "source_id",
    "spacing_of",
    "to_ras",
]
