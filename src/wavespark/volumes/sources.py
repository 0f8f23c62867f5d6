"""What there is to read below a path: a walk that opens nothing twice, follows no link and waits on no pipe."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field

from wavespark.errors import InputError, VolumeError
from wavespark.volumes.files import open_regular, refusal_of
from wavespark.volumes.privacy import bids_subject, patient_id, source_id
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.sniff import claimed, is_archive, is_pickle_or_code, sniff
from wavespark.volumes.volume import Refusal

_IGNORED = (b"._", b".DS_Store", b"Thumbs.db", b".git")
_UNSUPPORTED = "its format is none of NIfTI, DICOM, NRRD, MGH, MINC or PNG slices: convert it to .nii.gz"


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One file or DICOM series that should give a volume; small, frozen, picklable."""

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


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A file below the root, not yet judged."""

    path: bytes
    relative: bytes


@dataclass(kw_only=True)
class Walk:
    """What a walk has met so far."""

    secret: bytes
    sources: list[Source] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    slices: dict[str, list[Entry]] = field(default_factory=lambda: {"dicom": [], "png": []})
    beside: list[tuple[Entry, VolumeError]] = field(default_factory=list)
    """Odd files that claim nothing: a note on the series they lie beside, else refused."""
    others: int = 0
    """Files that claim to be no image."""

    def refuse(self, entry: Entry, error: InputError) -> None:
        """Leaves an input out, by name."""
        name = source_id(self.secret, entry.relative)
        self.refused.append(Refusal(source_id=name, reason=error.reason, sentence=error.sentence))


def find_sources(
    path: str | bytes | os.PathLike, secret: bytes, settings: ReadingSettings | None = None
) -> tuple[tuple[Source, ...], tuple[Refusal, ...]]:
    """Everything below a path that should give a volume, and what can be refused without reading it whole.

    Args:
        path: a file or a folder. The path itself may be a link; nothing below it may.
        secret: the key of the ids.
        settings: limits and repairs.

    Raises:
        InputError: `no_input`, `unsafe_archive` or `unsafe_file`, when the path itself cannot be used.
    """
    settings = settings or ReadingSettings()
    root = os.path.realpath(os.fsencode(path))
    walk = Walk(secret=secret)
    try:
        mode = os.stat(root).st_mode
    except OSError:
        raise InputError("no_input", "there is nothing at the given path: check its spelling") from None
    if stat.S_ISDIR(mode):
        for entry in _entries(root, walk):
            _judge(entry, walk)
    elif stat.S_ISREG(mode):
        _judge_single(Entry(path=root, relative=os.path.basename(os.fsencode(path)) or os.path.basename(root)), walk)
    else:
        raise InputError("unsafe_file", "the given path is a pipe, device or socket: give a file or a folder")
    _group(walk, settings)
    if not walk.sources and not walk.refused:
        if not walk.others:
            raise InputError("no_input", "the given folder holds no file")
        empty = VolumeError("no_readable_image", f"{walk.others} file(s) and none is an image that can be read")
        walk.refuse(Entry(path=root, relative=b"."), empty)
    return tuple(walk.sources), tuple(walk.refused)


def _entries(root: bytes, walk: Walk) -> Iterator[Entry]:
    """Regular files below the root in a fixed order; what is no regular file is refused or noted."""
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as found:
                items = sorted(found, key=lambda item: item.name)
        except OSError as error:
            walk.refuse(Entry(path=folder, relative=os.path.relpath(folder, root)), refusal_of(error))
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
                walk.beside.append((entry, VolumeError("not_a_regular_file", "it is a pipe, device or socket: only regular files are read")))
        folders.extend(reversed(below))


def _judge_link(entry: Entry, root: bytes, walk: Walk) -> None:
    target = os.path.realpath(entry.path)
    if os.path.commonpath([root, target]) != root:
        walk.refuse(entry, VolumeError("outside_root", "a link leads out of the given folder: put the file itself there"))
    elif not os.path.exists(target):
        walk.refuse(entry, VolumeError("not_found", "a link leads to nothing"))
    else:
        walk.beside.append((entry, VolumeError("not_a_regular_file", "a link is not followed: put the file itself there")))


def _judge(entry: Entry, walk: Walk) -> None:
    """Sorts one regular file of a folder by its content."""
    name = os.path.basename(entry.path)
    claim = claimed(name)
    try:
        with open_regular(entry.path) as file:
            size = file.size
            kind, head = sniff(file)
    except VolumeError as error:
        walk.refuse(entry, error)
        return
    if size == 0:
        error = VolumeError("empty_file", "the file is empty: copy it again")
        if claim or b"." not in name:
            walk.beside.append((entry, error))
            if claim:
                walk.refuse(entry, error)
        else:
            walk.others += 1
    elif kind in walk.slices:
        walk.slices[kind].append(entry)
    elif kind:
        walk.sources.append(_file_source(entry, kind, size, walk.secret))
    elif claim in ("nifti", "dicom"):
        error = VolumeError(f"not_{claim}", f"its name says {claim.upper()} and its content does not")
        walk.refuse(entry, error)
        walk.beside.append((entry, error))
    elif claim and claim != "png":
        walk.refuse(entry, VolumeError("unsupported_format" if claim == "unsupported" else "corrupt", _UNSUPPORTED))
    else:
        walk.others += 1
        walk.beside.append((entry, VolumeError("not_dicom", "it is not an image")))


def _judge_single(entry: Entry, walk: Walk) -> None:
    """A path to one file: whatever it is, something is said about it."""
    with open_regular(entry.path) as file:
        kind, head = sniff(file)
    if kind is None and is_archive(head):
        raise InputError("unsafe_archive", "archives are not unpacked here, because names in them can leave the folder: unpack it first")
    if kind is None and is_pickle_or_code(entry.relative, head):
        raise InputError("unsafe_file", "files of this kind can run code when they are loaded: they are not opened")
    _judge(entry, walk)
    if walk.others:
        walk.others = 0
        walk.beside.clear()
        walk.refuse(entry, VolumeError("unsupported_format", _UNSUPPORTED))


def _file_source(entry: Entry, kind: str, size: int, secret: bytes) -> Source:
    relative = os.fsdecode(entry.relative)
    return Source(
        id=source_id(secret, entry.relative),
        kind=kind,
        paths=(entry.path,),
        patient=patient_id(secret, bids_subject(entry.relative) or entry.relative),
        relative=relative,
        identity=relative,
        size=size,
    )


def _group(walk: Walk, settings: ReadingSettings) -> None:
    """Slices to series, and what lies beside them to notes."""
    for entry, error in walk.beside:
        if error.reason not in ("not_dicom", "not_nifti") and not any(r.source_id == source_id(walk.secret, entry.relative) for r in walk.refused):
            walk.refuse(entry, error)
