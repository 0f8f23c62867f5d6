"""File or folder to volumes: NIfTI, DICOM and others, read safely, checked, and named only by keyed
hashes."""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.volumes.contrasts import (
        CONTRASTS,
        NOT_FOR_PRETRAINING,
        NOTES_NOT_FOR_PRETRAINING,
        STRUCTURAL,
        label_of,
    )
    from wavespark.volumes.dicom import mark_in_mm
    from wavespark.volumes.finding import find_sources, find_with_places
    from wavespark.volumes.labels import read_label_map
    from wavespark.volumes.manifest import checked_path
    from wavespark.volumes.orientation import affine_from_axes, axes_to_ras, axis_codes, is_usable, spacing_of, to_ras
    from wavespark.volumes.privacy import new_secret, patient_id, session_id, source_id
    from wavespark.volumes.reading import read_source, read_volumes
    from wavespark.volumes.settings import AssumedGeometry, Override, ReadingSettings
    from wavespark.volumes.source import LABEL_NAME, Beside, Mark, Source
    from wavespark.volumes.volume import MODALITIES, Found, Refusal, Volume, content_hash

__all__ = [
    "CONTRASTS",
    "LABEL_NAME",
    "MODALITIES",
    "NOTES_NOT_FOR_PRETRAINING",
    "NOT_FOR_PRETRAINING",
    "STRUCTURAL",
    "AssumedGeometry",
    "Beside",
    "Found",
    "Mark",
    "Override",
    "ReadingSettings",
    "Refusal",
    "Source",
    "Volume",
    "affine_from_axes",
    "axes_to_ras",
    "axis_codes",
    "checked_path",
    "content_hash",
    "find_sources",
    "find_with_places",
    "is_usable",
    "label_of",
    "mark_in_mm",
    "new_secret",
    "patient_id",
    "read_label_map",
    "read_source",
    "read_volumes",
    "session_id",
    "source_id",
    "spacing_of",
    "to_ras",
]

__getattr__, __dir__ = lazy_exports(__name__)
