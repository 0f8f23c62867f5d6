"""A DICOM series to its volumes: headers, then geometry, then values slice by slice.

Value = stored number x slope + intercept of its own slice. What the scanner padded
(PixelPaddingValue) is found on stored numbers, gets the lowest measured value, and is marked as not
valid.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.dicom_file import open_dicom
from wavespark.volumes.dicom_header import ALLOWED_TAGS, Header, read_header, read_slices
from wavespark.volumes.dicom_pixels import check_pixels, read_frames
from wavespark.volumes.files import rescale
from wavespark.volumes.finish import check_size, finish
from wavespark.volumes.naming import Kind
from wavespark.volumes.privacy import source_id
from wavespark.volumes.series import Slice, Stack, arrange, fill_missing, resample_evenly
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.source import Mark, Source
from wavespark.volumes.volume import Volume

_TAGS = ALLOWED_TAGS
_AIR_AT_MOST = -500  # HU
_VANISHED = ("not_found", "permission_denied", "not_a_regular_file", "not_dicom")
_FATAL = ("too_large", "unsupported_transfer_syntax", "unsupported_dtype", "not_an_image_volume", "bad_rescale")
"""Reasons that leaving a file out does not mend."""
_MOST_DAMAGED = 0.2  # share of a series' files that may be left out
_TILED = (
    "each picture holds many slices beside each other (a Siemens mosaic or a UIH grid) and the header does not say where they "
    "lie: convert the series with dcm2niix and read its .nii.gz"
)


def read_dicom(source: Source, secret: bytes, settings: ReadingSettings) -> tuple[Volume, ...]:
    """The volumes of one series: one, or one for each echo, reconstruction or time point.

    The first keeps the series' id.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    damaged: dict[int, VolumeError] = {}
    while True:
        files = _read_headers(source, settings, damaged)
        try:
            return _read_volumes(files, secret, settings)
        except _DamagedFile as error:
            damaged[error.file] = error.error


@dataclass(frozen=True)
class _Files:
    """The files of a series with their headers."""

    source: Source
    headers: dict[int, Header]
    """By index into the source's paths; a damaged file has none."""
    slices: list[Slice]
    damaged: int


class _DamagedFile(Exception):
    """The pixels of one file cannot be read."""

    def __init__(self, file: int, error: VolumeError) -> None:
        super().__init__(error.sentence)
        self.file = file
        self.error = error


def _read_volumes(files: _Files, secret: bytes, settings: ReadingSettings) -> tuple[Volume, ...]:
    source = files.source
    slices, copies = _without_copies(files)
    notes = {*source.notes, *({"duplicate_files"} if copies else ())}
    notes |= {"damaged_files_left_out"} if files.damaged else set()
    notes |= {"monochrome1"} if any(header.monochrome1 for header in files.headers.values()) else set()
    stacks = arrange(slices, settings, lambda s: _digest(files, s))
    modality = _modality(files.headers.values(), settings)
    volumes = []
    for point, stack in enumerate(stacks):
        values, valid, repaired = _read_values(files, stack, settings)
        label = Counter(s.label for s in stack.slices).most_common(1)[0][0]
        volumes.append(
            finish(
                values,
                stack.affine,
                kind=Kind(modality, label.contrast, label.note),
                id=source.id if point == 0 else source_id(secret, f"{source.identity}#{point}"),
                patient=source.patient,
                session=source.session,
                notes=notes | stack.notes | repaired,
                settings=settings,
                valid=valid,
            )
        )
    return tuple(volumes)


def mark_in_mm(mark: Mark) -> tuple[float, float, float] | None:
    """Position of a mark in RAS mm; None if its slice has no position or cannot be read (PS3.3
    C.7.6.2.1.1)."""
    try:
        file = open_dicom(mark.file, _TAGS)
        slices = read_slices(file, read_header(file), 0)
    except VolumeError:
        return None
    found = next((s for s in slices if s.frame == mark.frame), None)
    if found is None or found.position is None or found.orientation is None or found.spacing is None:
        return None
    along_row, along_column = np.array(found.orientation[:3]), np.array(found.orientation[3:])
    place = np.array(found.position) + mark.x * found.spacing[1] * along_row + mark.y * found.spacing[0] * along_column
    r, a, s = (place * (-1, -1, 1)).tolist()
    return r, a, s


def _read_headers(source: Source, settings: ReadingSettings, damaged: dict[int, VolumeError]) -> _Files:
    """Headers and slices of all files that are not damaged.

    Raises:
        VolumeError: the reason of the first damaged file, with the numbers, unless gaps are allowed
            and few are damaged.
    """
    headers: dict[int, Header] = {}
    slices: list[Slice] = []
    damaged = dict(damaged)
    for index, path in enumerate(source.paths):
        if index in damaged:
            continue
        try:
            file = open_dicom(path, _TAGS)
            header = read_header(file)
            check_pixels(header, settings)
            of_file = read_slices(file, header, index)
        except VolumeError as error:
            damaged[index] = error
            continue
        headers[index] = header
        slices += of_file
    _check_damaged(damaged, len(source.paths), settings)
    if any(header.tiles is not None for header in headers.values()):
        raise VolumeError("tiled_slices", _TILED)
    return _Files(source, headers, slices, len(damaged))


def _check_damaged(damaged: dict[int, VolumeError], files: int, settings: ReadingSettings) -> None:
    if not damaged:
        return
    error = damaged[min(damaged)]
    if error.reason in _FATAL or files == 1:
        raise error
    if settings.allow_gaps and len(damaged) <= _MOST_DAMAGED * files:
        return
    reason = "unreadable_slice" if error.reason in _VANISHED else error.reason
    few = len(damaged) <= _MOST_DAMAGED * files
    advice = "go without them: reading.allow_gaps=true" if few else "export the series again"
    sentence = f"{len(damaged)} of {files} files of the series cannot be used: {error.sentence}, or {advice}"
    raise VolumeError(reason, sentence)


def _without_copies(files: _Files) -> tuple[list[Slice], bool]:
    """The slices without copied files: equal in SOP instance, place and pixels.

    Whether there were any.
    """
    groups: dict[tuple, list[Slice]] = defaultdict(list)
    for s in files.slices:
        instance = files.headers[s.file].instance
        groups[(instance or s.file, s.frame, s.position)].append(s)
    single: list[Slice] = []
    for group in groups.values():
        single += group if len(group) == 1 else {_digest(files, s): s for s in reversed(group)}.values()
    return single, len(single) < len(files.slices)


def _digest(files: _Files, s: Slice) -> bytes:
    """Hash of the stored numbers of a slice and of how they become values."""
    digest = hashlib.sha256(repr((s.slope, s.intercept)).encode())
    for _, stored in _frames(files, s.file, [s.frame]):
        digest.update(np.ascontiguousarray(stored).data.cast("B"))
    return digest.digest()


def _frames(files: _Files, index: int, frames: list[int]) -> Iterator[tuple[int, np.ndarray]]:
    """The frames of one file; damage is reported with the file's index."""
    try:
        yield from read_frames(files.source.paths[index], files.headers[index], frames)
    except VolumeError as error:
        raise _DamagedFile(index, error) from None


def _modality(headers: Iterable[Header], settings: ReadingSettings) -> str:
    modalities = {header.modality for header in headers} - {None}
    if len(modalities) > 1:
        raise VolumeError("mixed_geometry", "CT and MR slices in one series: export them apart")
    modality = settings.modality or next(iter(modalities), None)
    if modality is None:
        raise VolumeError("not_an_image_volume", "it is neither CT nor MR: set modality if it should be read as one")
    return modality


def _read_values(
    files: _Files, stack: Stack, settings: ReadingSettings
) -> tuple[np.ndarray, np.ndarray | None, set[str]]:
    """float32 [column, row, slice] with the slices contiguous; bool of the same grid or None;
    notes."""
    headers = files.headers
    columns, rows, depth = stack.shape
    check_size(stack.grid_shape, settings)
    out = np.empty((depth, rows, columns), np.float32)
    padded = np.zeros(out.shape, bool) if any(headers[s.file].padding for s in stack.slices) else None
    wanted: dict[int, dict[int, int]] = defaultdict(dict)
    for n, s in enumerate(stack.slices):
        wanted[s.file][s.frame] = n
    applied = settings.hu_already_applied and _is_hu(files, stack)
    for index, frames in wanted.items():
        for frame, stored in _frames(files, index, list(frames)):
            n = frames[frame]
            s, k = stack.slices[n], stack.depths[n]
            mask = _padding_mask(stored, headers[index])
            if applied:
                s = replace(s, slope=1.0, intercept=0.0)
            rescale(stored, s.slope, s.intercept, out=out[k])
            if padded is not None and mask is not None:
                padded[k] = mask
    _fill_padding(out, padded, list(stack.depths))
    missing = fill_missing(out, stack.depths)
    if missing:
        padded = np.zeros(out.shape, bool) if padded is None else padded
        padded[missing] = True
    if stack.places is not None:
        out, padded = resample_evenly(out, padded, stack.places)
    valid = None if padded is None or not padded.any() else ~padded
    return out.T, None if valid is None else valid.T, {"hu_already_applied"} if applied else set()


def _padding_mask(stored: np.ndarray, header: Header) -> np.ndarray | None:
    if header.padding is None:
        return None
    low, high = header.padding
    mask = stored == low if low == high else (stored >= low) & (stored <= high)
    return mask if mask.any() else None


def _is_hu(files: _Files, stack: Stack) -> bool:
    """True for CT whose stored numbers reach air before the rescale takes them there; all slices
    decide together."""
    headers = files.headers
    if any(headers[s.file].modality != "CT" or s.intercept > _AIR_AT_MOST for s in stack.slices):
        return False
    for s in stack.slices:
        for _, stored in _frames(files, s.file, [s.frame]):
            mask = _padding_mask(stored, headers[s.file])
            if (stored if mask is None else stored[~mask]).min(initial=0) <= _AIR_AT_MOST:
                return True
    return False


def _fill_padding(out: np.ndarray, padded: np.ndarray | None, there: list[int]) -> None:
    """The lowest measured value where nothing was measured, in the slices that are there."""
    if padded is None or not padded.any():
        return
    if padded[there].all():
        raise VolumeError("constant_volume", "every voxel is marked as padding")
    lowest = min(float(out[k].min(where=~padded[k], initial=np.inf)) for k in there)
    out[padded] = lowest
