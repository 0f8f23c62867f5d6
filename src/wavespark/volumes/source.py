"""One thing to read: a file, a DICOM series, a folder of slices."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file or series that should give a volume; small, frozen, picklable."""

    id: str
    """Keyed hash of `identity`: may be shown."""
    kind: str
    """`nifti`, `nrrd`, `mgh`, `minc`, `dicom` or `png`."""
    paths: tuple[bytes, ...]
    """Absolute paths, as bytes because a name need not be text. Private."""
    patient: str
    """Pseudonym of the patient: may be shown."""
    relative: str
    """Path below the root (of the folder, for a series), undecodable bytes kept as surrogates. Private."""
    identity: str
    """What the id is made of: relative path or SeriesInstanceUID. Private."""
    size: int
    """Bytes to read."""
    notes: tuple[str, ...] = ()
    """Reason codes that were known before reading."""
