"""DICOM files to series, by SeriesInstanceUID; what is no CT or MR image of one value a pixel stays out."""

import os
from collections import defaultdict
from dataclasses import dataclass, field

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from wavespark.errors import VolumeError
from wavespark.volumes.dicom_file import open_dicom
from wavespark.volumes.dicom_header import modality_of
from wavespark.volumes.privacy import patient_id, source_id, unquoted
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.sniff import is_misnamed
from wavespark.volumes.source import Source
from wavespark.volumes.walk import Entry, Walk

_DICOMDIR = "1.2.840.10008.1.3.10"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURES = tuple(_STORAGE + n for n in ("7", "7.1", "7.2", "7.3", "7.4"))
_KEYWORDS = (
    "SOPClassUID", "SeriesInstanceUID", "PatientID", "Modality", "Rows", "SamplesPerPixel", "NumberOfFrames",
    "ImagePositionPatient",
)  # fmt: skip
_NO_IMAGE = VolumeError(
    "not_an_image_volume", "it is no CT or MR image (but a document, capture, segmentation or another modality)"
)
_TAGS = tuple(tag for tag in map(tag_for_keyword, _KEYWORDS) if tag is not None)


@dataclass(kw_only=True)
class _Series:
    entries: list[Entry] = field(default_factory=list)
    patient: str = ""
    notes: set[str] = field(default_factory=set)

    @property
    def folders(self) -> set[bytes]:
        """Where its files lie."""
        return {entry.folder for entry in self.entries}


def group_dicom(walk: Walk, settings: ReadingSettings) -> None:
    """Turns the DICOM files of a walk into sources, and refuses those that cannot be images."""
    groups: dict[str, _Series] = defaultdict(_Series)
    unwanted: dict[str, _Series] = defaultdict(_Series)
    for entry in walk.slices["dicom"]:
        try:
            _add(entry, groups, unwanted, settings)
        except VolumeError as error:
            walk.refuse(entry.relative, error)
    odd = defaultdict(set)
    for entry, problem in walk.beside:
        odd[entry.folder].add(problem.reason)
    for identity, other in unwanted.items():
        if identity in groups:
            groups[identity].notes.add(_NO_IMAGE.reason)
        for folder in other.folders:
            odd[folder].add(_NO_IMAGE.reason)
    for identity, series in groups.items():
        folders = series.folders
        notes = series.notes.union(*(odd[folder] for folder in folders))
        walk.sources.append(
            Source(
                id=source_id(walk.secret, identity),
                kind="dicom",
                paths=tuple(entry.path for entry in series.entries),
                patient=patient_id(walk.secret, series.patient or identity),
                relative=os.fsdecode(os.path.commonpath(sorted(folders)) if all(folders) else b"."),
                identity=identity,
                size=sum(entry.size for entry in series.entries),
                notes=tuple(sorted(notes)),
            )
        )
    beside_images = set().union(*(series.folders for series in groups.values()))
    for identity, other in unwanted.items():
        if identity not in groups and not other.folders & beside_images:
            walk.refuse(os.fsencode(identity), _NO_IMAGE, os.path.dirname(other.entries[0].path))
    for entry, problem in walk.beside:
        if entry.folder not in beside_images and problem.reason != "not_dicom":
            walk.refuse(entry.relative, problem)


def _add(entry: Entry, groups: dict[str, _Series], unwanted: dict[str, _Series], settings: ReadingSettings) -> None:
    file = open_dicom(entry.path, _TAGS)
    with unquoted("corrupt", "its DICOM header cannot be parsed: copy or export it again"):
        dataset = file.dataset
        sop_class = str(dataset.get("SOPClassUID", "") or file.meta.media_class).strip()
        if _DICOMDIR in (sop_class, file.meta.media_class):
            return
        if not sop_class and "Rows" not in dataset:
            raise VolumeError("corrupt", "its DICOM header says nothing of what it is: copy or export it again")
        uid = str(dataset.get("SeriesInstanceUID", "") or "").strip() or "folder:" + os.fsdecode(entry.folder)
        series = (groups if _is_image(dataset, sop_class, settings) else unwanted)[uid]
        series.entries.append(entry)
        series.patient = series.patient or str(dataset.get("PatientID", "") or "").strip()
        if is_misnamed(entry.path, "dicom"):
            series.notes.add("wrong_extension")
        if not file.meta.preamble:
            series.notes.add("no_preamble")


def _is_image(dataset: Dataset, sop_class: str, settings: ReadingSettings) -> bool:
    if int(dataset.get("SamplesPerPixel", 1) or 1) > 1:
        return False
    if modality_of(sop_class):
        return True
    known_other = sop_class.startswith(_STORAGE) and sop_class not in _CAPTURES
    if settings.modality is None and (known_other or str(dataset.get("Modality", "")).strip() not in ("CT", "MR")):
        return False
    # A capture of one frame that lies nowhere is a picture of a screen.
    single = int(dataset.get("NumberOfFrames", 1) or 1) == 1
    screen = sop_class in _CAPTURES and single and "ImagePositionPatient" not in dataset
    return bool(dataset.get("Rows")) and not screen
