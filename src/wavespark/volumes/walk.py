"""The walk below a path: regular files in a fixed order, judged by content; no link is followed, no pipe waited on."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from wavespark.errors import InputError, VolumeError
from wavespark.volumes.files import open_regular, refusal_of
from wavespark.volumes.privacy import bids_session, bids_subject, patient_id, session_id, source_id
from wavespark.volumes.sniff import claimed, is_another_known, is_archive, is_misnamed, is_pickle_or_code, sniff
from wavespark.volumes.source import Source
from wavespark.volumes.volume import Refusal

_IGNORED = (b"._", b".DS_Store", b"Thumbs.db", b".git")
_UNSUPPORTED = "its format is none of NIfTI, DICOM, NRRD, MGH, MINC or PNG slices: convert it to .nii.gz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file below the root."""

    path: bytes
    relative: bytes
    """Path below the root."""
    size: int = 0

    @property
    def folder(self) -> bytes:
        """The folder that it lies in, below the root."""
        return os.path.dirname(self.relative)


@dataclass(kw_only=True)
class Walk:
    """What a walk has met so far."""

    secret: bytes
    sources: list[Source] = field(default_factory=list)
    refused: dict[bytes, InputError] = field(default_factory=dict)
    """Left out, by relative path, or by identity for a series."""
    places: dict[bytes, bytes] = field(default_factory=dict)
    """Where what was left out lies, if its key is no path. Private."""
    slices: dict[str, list[Entry]] = field(default_factory=lambda: {"dicom": [], "png": []})
    """Files that only make a volume together."""
    beside: list[tuple[Entry, VolumeError]] = field(default_factory=list)
    """Odd files: a note on the series that they lie beside."""
    others: int = 0
    """Files that claim to be no image."""

    def refuse(self, relative: bytes, error: InputError, place: bytes | None = None) -> None:
        """Leaves an input out, by name, once."""
        self.refused.setdefault(relative, error)
        if place is not None:
            self.places.setdefault(relative, place)

    def refusals(self) -> tuple[Refusal, ...]:
        """Everything that was left out."""
        return tuple(
            Refusal(source_id=source_id(self.secret, relative), reason=error.reason, sentence=error.sentence)
            for relative, error in self.refused.items()
        )

    def folder(self, root: bytes, start: bytes | None = None) -> None:
        """Judges every file below a folder: the root, or one that lies in it."""
        for entry in _entries(root, start or root, self):
            self.file(entry)

    def single(self, entry: Entry) -> None:
        """Judges one file that was named itself: whatever it is, something is said about it.

        Raises:
            InputError: `unsafe_archive`, `unsafe_file`.
        """
        try:
            with open_regular(entry.path) as file:
                kind, head = sniff(file)
        except VolumeError as error:
            self.refuse(entry.relative, error)
            return
        if kind is None and is_archive(head):
            sentence = "archives are not unpacked here, because names in them can leave the folder: unpack it yourself"
            raise InputError("unsafe_archive", sentence)
        if kind is None and is_pickle_or_code(entry.relative, head):
            raise InputError("unsafe_file", "files of this kind can run code when they are loaded: it is not opened")
        self.named(entry)

    def named(self, entry: Entry) -> None:
        """Judges one file that somebody named, so that it is refused even if it claims to be no image."""
        others = self.others
        self.file(entry)
        if self.others > others:
            self.refuse(entry.relative, VolumeError("unsupported_format", _UNSUPPORTED))

    def file(self, entry: Entry) -> None:
        """Sorts one regular file by its content."""
        name = os.path.basename(entry.path)
        claim = claimed(name)
        try:
            with open_regular(entry.path) as file:
                size = file.size
                kind, head = sniff(file)
        except VolumeError as error:
            self.refuse(entry.relative, error)
            return
        entry = Entry(path=entry.path, relative=entry.relative, size=size)
        if size == 0:
            self._judge_empty(entry, claim, b"." in name)
        elif kind in self.slices:
            self.slices[kind].append(entry)
        elif kind:
            self.sources.append(_file_source(entry, kind, self.secret))
        elif claim in ("nifti", "dicom"):
            odd = VolumeError(f"not_{claim}", "its content is not of the format that its name says")
            if claim == "nifti" and is_another_known(head):
                odd = VolumeError(
                    "wrong_extension", "it is a picture, document or archive under the name of a NIfTI file"
                )
            self.refuse(entry.relative, odd)
            self.beside.append((entry, odd))
        elif claim == "unsupported":
            self.refuse(entry.relative, VolumeError("unsupported_format", _UNSUPPORTED))
        elif claim and claim != "png":
            self.refuse(entry.relative, VolumeError("corrupt", "its name says an image format that its content is not"))
        else:
            self.others += 1
            self.beside.append((entry, VolumeError("not_dicom", "it is not an image")))

    def _judge_empty(self, entry: Entry, claim: str | None, has_extension: bool) -> None:
        """Refused if it claims to be an image; without an extension, as usual for DICOM, its neighbours tell."""
        error = VolumeError("empty_file", "the file is empty: copy it again")
        if claim:
            self.refuse(entry.relative, error)
        if claim or not has_extension:
            self.beside.append((entry, error))
        else:
            self.others += 1


def _entries(root: bytes, start: bytes, walk: Walk) -> Iterator[Entry]:
    """Regular files below the root; what is no regular file is refused or noted."""
    folders = [start]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                items = sorted(found, key=lambda item: item.name)
        except OSError as error:
            walk.refuse(os.path.relpath(folder, root), refusal_of(error))
            continue
        below = []
        for item in items:
            entry = Entry(path=item.path, relative=os.path.relpath(item.path, root))
            if item.name.startswith(_IGNORED):
                continue
            if item.is_symlink():
                _judge_link(entry, root, walk)
            elif item.is_dir(follow_symlinks=False):
                below.append(item.path)
            elif item.is_file(follow_symlinks=False):
                yield entry
            else:
                sentence = "it is a pipe, device or socket: only regular files are read"
                walk.beside.append((entry, VolumeError("not_a_regular_file", sentence)))
        folders.extend(reversed(below))


def _judge_link(entry: Entry, root: bytes, walk: Walk) -> None:
    target = os.path.realpath(entry.path)
    if os.path.commonpath([root, target]) != root:
        sentence = "a link leads out of the given folder: put the file itself there"
        walk.refuse(entry.relative, VolumeError("outside_root", sentence))
    elif not os.path.exists(target):
        walk.refuse(entry.relative, VolumeError("not_found", "a link leads to nothing"))
    else:
        sentence = "a link is not followed: put the file itself there"
        walk.beside.append((entry, VolumeError("not_a_regular_file", sentence)))


def _file_source(entry: Entry, kind: str, secret: bytes) -> Source:
    relative = os.fsdecode(entry.relative)
    patient = patient_id(secret, bids_subject(entry.relative) or entry.relative)
    session = bids_session(entry.relative)
    return Source(
        id=source_id(secret, entry.relative),
        kind=kind,
        paths=(entry.path,),
        patient=patient,
        session=session_id(secret, patient, session) if session else None,
        relative=relative,
        identity=relative,
        size=entry.size,
        notes=("wrong_extension",) if is_misnamed(entry.path, kind) else (),
    )
