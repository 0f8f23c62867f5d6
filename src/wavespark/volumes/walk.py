"""The walk below a path: regular files in a fixed order, judged by content; archives like folders;
no pipe is waited on.

A link is followed if its target lies below the root too; each file is read once, under its own name
if it has one there.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from wavespark.errors import InputError, VolumeError
from wavespark.volumes.archives import open_archive
from wavespark.volumes.files import open_regular, refusal_of
from wavespark.volumes.pairs import header_beside, is_image_of_pair
from wavespark.volumes.privacy import bids_session, bids_subject, patient_id, session_id, source_id
from wavespark.volumes.sniff import (
    claimed,
    is_another_known,
    is_archive,
    is_misnamed,
    is_pickle_or_code,
    is_readable_archive,
    plain_head,
    sniff,
)
from wavespark.volumes.source import Source
from wavespark.volumes.streams import ZSTANDARD, has_zstandard, is_compressed
from wavespark.volumes.volume import Refusal

_IGNORED = (b"._", b".DS_Store", b"Thumbs.db", b".git", b"__MACOSX")
_UNSUPPORTED = (
    "its format is none of NIfTI, Analyze, DICOM, NRRD, MetaImage, MGH, MINC or PNG slices: convert it to .nii.gz"
)
_NESTED = VolumeError(
    "unsafe_archive", "archives in archives are not opened: unpack the outer one yourself and give the folder"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file below the root."""

    path: bytes
    relative: bytes
    """Path below the root."""
    size: int = 0
    named: bytes | None = None
    """Absolute path of the link that leads to it, None if no link does."""

    @property
    def name(self) -> bytes:
        """The name under which it lies below the root."""
        return os.path.basename(self.relative)

    @property
    def folder(self) -> bytes:
        """The folder that it lies in, below the root."""
        return os.path.dirname(self.relative)


@dataclass(kw_only=True)
class Walk:
    """State of a walk: sources, refusals, and slices that wait for their series."""

    secret: bytes
    sources: list[Source] = field(default_factory=list)
    refused: dict[bytes, InputError] = field(default_factory=dict)
    """Left out, by relative path, or by identity for a series."""
    places: dict[bytes, bytes] = field(default_factory=dict)
    """Paths of refused inputs whose key is no path. Private."""
    slices: dict[str, list[Entry]] = field(default_factory=lambda: {"dicom": [], "png": []})
    """Files that only make a volume together."""
    beside: list[tuple[Entry, VolumeError]] = field(default_factory=list)
    """Odd files: a note on the series that they lie beside."""
    others: int = 0
    """Files that claim to be no image."""
    visited: set[bytes] = field(default_factory=set)
    """Real paths of the files and folders that were judged."""
    links: list[Entry] = field(default_factory=list)
    """Links that are followed once everything else is judged."""

    def refuse(self, relative: bytes, error: InputError, place: bytes | None = None) -> None:
        """Leaves an input out, by name, once."""
        self.refused.setdefault(relative, error)
        if place is not None:
            self.places.setdefault(relative, place)

    def refusals(self) -> tuple[Refusal, ...]:
        """Refusals of all inputs that were left out."""
        return tuple(
            Refusal(source_id=source_id(self.secret, relative), reason=error.reason, sentence=error.sentence)
            for relative, error in self.refused.items()
        )

    def folder(self, root: bytes, start: bytes | None = None) -> None:
        """Judges every file below a folder: the root, or one that lies in it.

        Links are followed at the end.
        """
        for entry in _entries(root, start or root, self):
            self.file(entry)
        while self.links:
            self._follow(self.links.pop(0), root)

    def single(self, entry: Entry) -> None:
        """Judge one file that was named itself; it becomes a source or a refusal.

        Raises:
            InputError: `unsafe_archive`, `unsafe_file`.
        """
        try:
            with open_regular(entry.path) as file:
                kind, head = sniff(file)
                inner = plain_head(file, head)
        except VolumeError as error:
            self.refuse(entry.relative, error)
            return
        if kind is None and is_pickle_or_code(entry.relative, head):
            raise InputError("unsafe_file", "files of this kind can run code when they are loaded: it is not opened")
        if kind is None and is_readable_archive(entry.name, head, inner):
            self._archive(entry)
            if entry.relative in self.refused:
                raise InputError("unsafe_archive", self.refused[entry.relative].sentence)
            return
        if (
            kind is None
            and is_archive(head)
            and not (is_compressed(head) and claimed(entry.name) not in (None, "unsupported"))
        ):
            sentence = "only zip and tar archives are read like folders: unpack this one yourself and give the folder"
            raise InputError("unsafe_archive", sentence)
        header = header_beside(entry.path) if kind is None and is_image_of_pair(entry.name) else None
        if header is not None:
            relative = os.path.join(entry.folder, os.path.basename(header))
            entry = Entry(path=header, relative=relative)
        self.named(entry)

    def named(self, entry: Entry) -> None:
        """Judges one file that somebody named, so that it is refused even if it claims to be no
        image."""
        others = self.others
        self.file(entry)
        if self.others > others:
            self.refuse(entry.relative, VolumeError("unsupported_format", _UNSUPPORTED))

    def _archive(self, entry: Entry) -> None:
        """Judges every member of an archive, or refuses it as a whole."""
        try:
            members = open_archive(entry.path).members
        except VolumeError as error:
            reason = error.reason if error.reason in ("not_found", "permission_denied") else "unsafe_archive"
            self.refuse(entry.relative, VolumeError(reason, error.sentence))
            return
        for member in sorted(members):
            if not any(part.startswith(_IGNORED) for part in member.split(b"/")):
                path, relative = os.path.join(entry.path, member), os.path.join(entry.relative, member)
                self.file(Entry(path=path, relative=relative), within=True)

    def _follow(self, link: Entry, root: bytes) -> None:
        """Judges what a link leads to, if that lies below the root and was not judged under its own
        name."""
        target = os.path.realpath(link.path)
        if os.path.commonpath([root, target]) != root:
            sentence = "a link leads out of the given folder: put the file itself there"
            self.refuse(link.relative, VolumeError("outside_root", sentence))
        elif not os.path.exists(target):
            self.refuse(link.relative, VolumeError("not_found", "a link leads to nothing"))
        elif target in self.visited:
            self.others += 1
        elif os.path.isdir(target):
            for entry in _entries(root, target, self):
                below = os.path.relpath(entry.path, target)
                named = os.path.join(link.path, below)
                self.file(Entry(path=entry.path, relative=os.path.join(link.relative, below), named=named))
        elif os.path.isfile(target):
            self.visited.add(target)
            self.file(Entry(path=target, relative=link.relative, named=link.path))
        else:
            self.beside.append((link, _no_file()))

    def file(self, entry: Entry, within: bool = False) -> None:
        """Sorts one regular file by its content.

        Args:
            entry: the file.
            within: True for a member of an archive.
        """
        name = entry.name
        claim = claimed(name)
        if is_image_of_pair(name) and header_beside(entry.path) is not None:
            return  # read with its header
        try:
            with open_regular(entry.path) as file:
                size = file.size
                kind, head = sniff(file)
                inner = plain_head(file, head) if kind is None else head
        except VolumeError as error:
            self.refuse(entry.relative, error)
            return
        entry = replace(entry, size=size)
        archive = kind is None and is_readable_archive(name, head, inner)
        if size == 0:
            self._judge_empty(entry, claim, b"." in name)
        elif archive or (within and kind is None and is_archive(head) and claim == "unsupported"):
            if within:
                self.refuse(entry.relative, _NESTED)
            else:
                self._archive(entry)
        elif kind in self.slices:
            self.slices[kind].append(entry)
        elif kind:
            self.sources.append(_file_source(entry, kind, self.secret))
        elif claim == "nifti" and head.startswith(ZSTANDARD) and not has_zstandard():
            sentence = "it is compressed with zstandard. Type: pip install 'wavespark[formats]', and read it again"
            self.refuse(entry.relative, VolumeError("unsupported_format", sentence))
        elif claim in ("nifti", "dicom", "mgh") and is_compressed(head) and not inner:
            self.refuse(
                entry.relative, VolumeError("corrupt", "its compressed stream is damaged or ends early: copy it again")
            )
        elif claim == "unsupported" and is_image_of_pair(name):
            self.refuse(
                entry.relative,
                VolumeError("unsupported_format", "the .hdr file of this .img is missing: put both into one folder"),
            )
        elif claim in ("nifti", "dicom"):
            odd = VolumeError(f"not_{claim}", "its content is not of the format that its name says")
            if claim == "nifti" and is_another_known(head) and not is_compressed(head):
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
        """Refused if it claims to be an image; without an extension, as usual for DICOM, its
        neighbours tell."""
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
        if folder in walk.visited:
            continue
        walk.visited.add(folder)
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
                walk.links.append(entry)
            elif item.is_dir(follow_symlinks=False):
                below.append(item.path)
            elif item.is_file(follow_symlinks=False):
                walk.visited.add(item.path)
                yield entry
            else:
                walk.beside.append((entry, _no_file()))
        folders.extend(reversed(below))


def _no_file() -> VolumeError:
    return VolumeError("not_a_regular_file", "it is a pipe, device or socket: only regular files are read")


def _file_source(entry: Entry, kind: str, secret: bytes) -> Source:
    relative = os.fsdecode(entry.relative)
    patient = patient_id(secret, bids_subject(entry.relative) or entry.relative)
    session = bids_session(entry.relative)
    return Source(
        id=source_id(secret, entry.relative),
        kind=kind,
        paths=(entry.path,),
        named=entry.named,
        patient=patient,
        session=session_id(secret, patient, session) if session else None,
        relative=relative,
        identity=relative,
        size=entry.size,
        notes=("wrong_extension",) if is_misnamed(entry.name, kind) else (),
    )
