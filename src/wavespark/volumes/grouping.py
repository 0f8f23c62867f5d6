"""DICOM files to series; what is no CT or MR image of one value a pixel stays out.

A SeriesInstanceUID alone does not name a series: anonymisers write one constant for many patients.
Files are of one series only if everything that the standard keeps constant in a series agrees:
patient, study, equipment (PS3.3 A.1.2, C.7).
"""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from wavespark.errors import VolumeError
from wavespark.volumes.dicom_file import DicomFile, open_dicom
from wavespark.volumes.dicom_header import modality_of
from wavespark.volumes.privacy import patient_id, session_id, source_id, unquoted
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.sniff import is_misnamed
from wavespark.volumes.source import Source
from wavespark.volumes.walk import Entry, Walk

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_CAPTURES = tuple(_STORAGE + n for n in ("7", "7.1", "7.2", "7.3", "7.4"))
_PERSON = ("PatientName", "PatientBirthDate", "PatientSex", "IssuerOfPatientID")
_PATIENT = ("PatientID", *_PERSON, "StudyInstanceUID")
"""Another value is another patient or study, even in one file."""
_CONSTANT = (
    "StudyID",
    "AccessionNumber",
    "StudyDate",
    "StudyTime",
    "DeviceSerialNumber",
    "StationName",
    "Manufacturer",
)
"""Constant in a series; another value in at least three files is another series."""
_LEAST_FILES = 3
_KEYWORDS = (
    "SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "Modality", "Rows", "SamplesPerPixel", "NumberOfFrames",
    "InstanceNumber", "ImagePositionPatient", *_PATIENT, *_CONSTANT,
)  # fmt: skip
_NO_IMAGE = VolumeError(
    "not_an_image_volume", "it is no CT or MR image (but a document, capture, segmentation or another modality)"
)
_TAG_OF = {keyword: BaseTag(tag) for keyword in _KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}
_TAGS = tuple(_TAG_OF.values())


@dataclass(frozen=True, slots=True)
class _File:
    """Header values of one file that decide which series it belongs to."""

    entry: Entry
    values: dict[str, str]
    """Normalised values of `_PATIENT` and `_CONSTANT`, and of the instance. Private."""
    notes: frozenset[str]


@dataclass(kw_only=True)
class _Series:
    files: list[_File] = field(default_factory=list)
    identity: str = ""
    notes: set[str] = field(default_factory=set)

    @property
    def folders(self) -> set[bytes]:
        """Folders that hold its files."""
        return {file.entry.folder for file in self.files}

    def first(self, keyword: str) -> str:
        """The first value that is not empty."""
        return next((file.values[keyword] for file in self.files if file.values[keyword]), "")


def group_dicom(walk: Walk, settings: ReadingSettings) -> None:
    """Turns the DICOM files of a walk into sources, and refuses those that cannot be images."""
    images: dict[str, list[_File]] = defaultdict(list)
    unwanted: dict[str, _Series] = defaultdict(_Series)
    odd: dict[bytes, set[str]] = defaultdict(set)
    for entry in walk.slices["dicom"]:
        try:
            _add(entry, images, unwanted, walk, settings)
        except VolumeError as error:
            walk.refuse(entry.relative, error)
            odd[entry.folder].add("damaged_files_left_out")
    for entry, problem in walk.beside:
        odd[entry.folder].add(problem.reason)
    series = [part for uid, files in images.items() for part in _split(uid, files)]
    for uid, other in unwanted.items():
        for part in series:
            if part.identity.partition("#")[0] == uid:
                part.notes.add(_NO_IMAGE.reason)
        for folder in other.folders:
            odd[folder].add(_NO_IMAGE.reason)
    shared = _shared_patient_ids(file for part in series for file in part.files)
    walk.sources += [_source(part, odd, shared, walk.secret) for part in series]
    beside_images = set().union(*(part.folders for part in series))
    for uid, other in unwanted.items():
        if uid not in images and not other.folders & beside_images:
            walk.refuse(os.fsencode(uid), _NO_IMAGE, os.path.dirname(other.files[0].entry.path))
    for entry, problem in walk.beside:
        if entry.folder not in beside_images and problem.reason != "not_dicom":
            walk.refuse(entry.relative, problem)


def _source(part: _Series, odd: dict[bytes, set[str]], shared: set[str], secret: bytes) -> Source:
    folders = part.folders
    person = part.first("PatientID")
    if person in shared:
        person = "\x00".join([person, *(part.first(keyword) for keyword in _PERSON)])
    patient = patient_id(secret, person or part.identity)
    study = part.first("StudyInstanceUID")
    return Source(
        id=source_id(secret, part.identity),
        kind="dicom",
        paths=tuple(file.entry.path for file in part.files),
        patient=patient,
        session=session_id(secret, patient, study) if study else None,
        relative=os.fsdecode(os.path.commonpath(sorted(folders)) if all(folders) else b"."),
        identity=part.identity,
        size=sum(file.entry.size for file in part.files),
        notes=tuple(sorted(part.notes.union(*(odd[folder] for folder in folders)))),
    )


def _add(
    entry: Entry, images: dict[str, list[_File]], unwanted: dict[str, _Series], walk: Walk, settings: ReadingSettings
) -> None:
    """Puts a file with its series, or with what is no image."""
    file = open_dicom(entry.path, _TAGS)
    if file.meta.directory:
        walk.others += 1
        return
    with unquoted("corrupt", "its DICOM header cannot be parsed: copy or export it again"):
        dataset = file.dataset
        sop_class = str(dataset.get("SOPClassUID", "") or file.meta.media_class).strip()
        if not sop_class and "Rows" not in dataset:
            raise VolumeError("corrupt", "its DICOM header says nothing of what it is: copy or export it again")
        uid = str(dataset.get("SeriesInstanceUID", "") or "").strip() or "folder:" + os.fsdecode(entry.folder)
        notes = {"wrong_extension"} if is_misnamed(entry.name, "dicom") else set()
        notes |= set() if file.meta.preamble else {"no_preamble"}
        keywords = (*_PATIENT, *_CONSTANT, "SOPInstanceUID", "InstanceNumber", "ImagePositionPatient")
        named = _File(entry, {keyword: _plain(dataset, keyword) for keyword in keywords}, frozenset(notes))
        if _is_image(file, sop_class, settings):
            images[uid].append(named)
        else:
            unwanted[uid].files.append(named)


def _plain(dataset: Dataset, keyword: str) -> str:
    """A value without what writers add to it: blanks; in a name, empty components and the case."""
    tag = _TAG_OF[keyword]
    if tag not in dataset:
        return ""
    raw = dataset.get_item(tag)
    value = (
        raw.value if raw is not None else None
    )  # bytes as stored: pydicom's conversion would cost more than the reading
    if isinstance(value, bytes):
        text = value.decode("latin-1")
    else:
        several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
        text = "" if value is None else "\\".join(map(str, several))
    text = text.strip(" \x00")
    return text.strip(" ^").upper() if keyword == "PatientName" else text


def _is_image(file: DicomFile, sop_class: str, settings: ReadingSettings) -> bool:
    dataset = file.dataset
    if int(dataset.get("SamplesPerPixel", 1) or 1) > 1:
        return False
    if modality_of(sop_class):
        return True
    known_other = sop_class.startswith(_STORAGE) and sop_class not in _CAPTURES
    if settings.modality is None and (known_other or str(dataset.get("Modality", "")).strip() not in ("CT", "MR")):
        return False
    # A capture of one frame that lies nowhere is a picture of a screen; a private object without
    # pixels is a protocol.
    single = int(dataset.get("NumberOfFrames", 1) or 1) == 1
    screen = sop_class in _CAPTURES and single and "ImagePositionPatient" not in dataset
    return bool(dataset.get("Rows")) and file.pixels is not None and not screen


def _split(uid: str, files: list[_File]) -> list[_Series]:
    """The series that share a SeriesInstanceUID: usually one."""
    columns = [column for keyword in _PATIENT if (column := _telling(files, keyword, 1))]
    columns += [column for keyword in _CONSTANT if (column := _telling(files, keyword, _LEAST_FILES))]
    groups: dict[tuple[str, ...], list[_File]] = defaultdict(list)
    for n, file in enumerate(files):
        groups[tuple(column[n] for column in columns)].append(file)
    parts: list[tuple[str, list[_File]]] = []
    for key, members in groups.items():
        for folder, some in _by_folder(members).items():
            parts.append(("\x00".join((*key, folder)), some))
    several = len(parts) > 1
    return [_series(f"{uid}#{_short(key)}" if several else uid, members) for key, members in sorted(parts)]


def _series(identity: str, files: list[_File]) -> _Series:
    return _Series(files=files, identity=identity, notes=set().union(*(file.notes for file in files)))


def _short(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _telling(files: list[_File], keyword: str, least: int) -> list[str]:
    """The value of each file where it tells series apart, else nothing.

    A file that states none is taken to agree with the others of its folder, if those agree. Values
    that are different in each of many files were written by an anonymiser that gives every file a
    new one: they tell nothing.
    """
    values = [file.values[keyword] for file in files]
    known = set(values) - {""}
    if not known or len(set(values)) == 1:
        return []
    by_folder: dict[bytes, set[str]] = defaultdict(set)
    for file, value in zip(files, values, strict=True):
        by_folder[file.entry.folder] |= {value} - {""}
    for n, file in enumerate(files):
        beside = by_folder[file.entry.folder]
        values[n] = values[n] or (next(iter(beside)) if len(beside) == 1 else "")
    counts = [values.count(value) for value in set(values)]
    random = len(counts) == len(files) > _LEAST_FILES and keyword not in ("PatientID", *_PERSON)
    return [] if len(counts) == 1 or random or min(counts) < least else values


def _by_folder(files: list[_File]) -> dict[str, list[_File]]:
    """By folder, if the folders hold series of their own: the same instance numbers, and not the
    same files again."""
    folders: dict[bytes, list[_File]] = defaultdict(list)
    for file in files:
        folders[file.entry.folder].append(file)
    if len(folders) == 1 or any(len(members) < _LEAST_FILES for members in folders.values()):
        return {"": files}
    seen: dict[str, tuple[bytes, str, str]] = {}
    clashes = 0
    for file in files:
        number, place = file.values["InstanceNumber"], file.values["ImagePositionPatient"]
        folder, instance, other_place = seen.setdefault(
            number, (file.entry.folder, file.values["SOPInstanceUID"], place)
        )
        same = instance == file.values["SOPInstanceUID"] and place == other_place
        clashes += bool(number) and folder != file.entry.folder and not same
    if clashes < 0.5 * min(map(len, folders.values())):
        return {"": files}
    return {os.fsdecode(folder): members for folder, members in folders.items()}


def _shared_patient_ids(files: Iterable[_File]) -> set[str]:
    """PatientIDs that several persons have: an anonymiser's constant."""
    persons: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for file in files:
        for keyword in _PERSON:
            persons[file.values["PatientID"]][keyword] |= {file.values[keyword]} - {""}
    return {person for person, said in persons.items() if person and any(len(values) > 1 for values in said.values())}
