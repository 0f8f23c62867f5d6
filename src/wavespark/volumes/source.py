"""One thing to read: a file, a DICOM series, a folder of slices; and what is known about it from
elsewhere."""

import re
from dataclasses import dataclass

LABEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")
"""Allowed names of label maps: nothing that could be a sentence about a patient."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mark:
    """A point that somebody set in one slice."""

    name: str
    file: bytes
    """Absolute path of the DICOM file. Private."""
    frame: int
    """Frame of a multi-frame file, from 0."""
    x: float
    """Column, in pixels from the middle of the first."""
    y: float
    """Row."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """Data that belong to a volume and lie in other files."""

    labels: tuple[tuple[str, bytes], ...] = ()
    """(name, absolute path) of label maps in the volume's space. Paths are private."""
    hidden: bytes | None = None
    """Absolute path of a map that is not 0 where voxels were made unrecognisable (defaced)."""
    targets: tuple[tuple[str, float], ...] = ()
    """Targets of the whole volume, by name."""
    marks: tuple[Mark, ...] = ()
    modality: str | None = None
    """`MR` or `CT`, where the data set knows better than the file."""
    contrast: str | None = None

    @property
    def paths(self) -> tuple[bytes, ...]:
        """Every file that is meant."""
        return tuple(path for _, path in self.labels) + (() if self.hidden is None else (self.hidden,))


NOTHING_BESIDE = Beside()


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file or series that should give a volume; small, frozen, picklable."""

    id: str
    """Keyed hash of `identity`: may be shown."""
    kind: str
    """`nifti`, `analyze`, `nrrd`, `metaimage`, `mgh`, `minc`, `dicom` or `png`."""
    paths: tuple[bytes, ...]
    """Absolute paths, as bytes because a name need not be text; a member of an archive goes on
    below it. Private."""
    named: bytes | None = None
    """Absolute path of the link that the file was reached by, None if there was none. Private."""
    patient: str
    """Pseudonym of the patient: may be shown."""
    session: str | None = None
    """Pseudonym of the session, None if it is not known: may be shown."""
    relative: str
    """Path below the root (of the folder, for a series), undecodable bytes kept as surrogates.

    Private.
    """
    identity: str
    """Input of the id: relative path or SeriesInstanceUID. Private."""
    size: int
    """Bytes to read."""
    notes: tuple[str, ...] = ()
    """Reason codes that were known before reading."""
    beside: Beside = NOTHING_BESIDE
