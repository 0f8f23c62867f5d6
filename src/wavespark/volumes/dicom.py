"""A DICOM series to its volumes: headers, then geometry, then values slice by slice.

Value = stored number x slope + intercept of its own slice. What the scanner padded (PixelPaddingValue) is found on
stored numbers, gets the lowest measured value, and is marked as not valid.
"""

from collections import defaultdict
from dataclasses import replace

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.dicom_file import open_dicom
from wavespark.volumes.dicom_header import HEADER_TAGS, Header, read_header, read_slices
from wavespark.volumes.dicom_pixels import check_pixels, read_frames
from wavespark.volumes.files import rescale
from wavespark.volumes.finish import check_size, finish
from wavespark.volumes.naming import Kind
from wavespark.volumes.privacy import source_id
from wavespark.volumes.series import Slice, Stack, arrange, fill_missing
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.source import Mark, Source
from wavespark.volumes.volume import Volume

_TAGS = tuple(HEADER_TAGS.values())
_AIR_AT_MOST = -500  # HU
_VANISHED = ("not_found", "permission_denied", "not_a_regular_file", "not_dicom")


def read_dicom(source: Source, secret: bytes, settings: ReadingSettings) -> tuple[Volume, ...]:
    """The volumes of one series: one, or one a time point, the first of which keeps the id of the series.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    headers, slices = _read_headers(source, settings)
    slices, notes = _without_copies(headers, slices)
    notes |= set(source.notes)
    stacks = arrange(slices, settings)
    kind = _kind(headers, settings)
    if any(header.monochrome1 for header in headers):
        notes.add("monochrome1")
    volumes = []
    for point, stack in enumerate(stacks):
        values, valid, repaired = _read_values(source, headers, stack, settings)
        volumes.append(
            finish(
                values,
                stack.affine,
                kind=kind,
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
    """Where a mark lies, RAS mm; None where its slice does not say where it lies or cannot be read (PS3.3 C.7.6.2.1.1)."""
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


def _read_headers(source: Source, settings: ReadingSettings) -> tuple[list[Header], list[Slice]]:
    headers: list[Header] = []
    slices: list[Slice] = []
    for index, path in enumerate(source.paths):
        try:
            file = open_dicom(path, _TAGS)
            header = read_header(file)
            check_pixels(header, settings)
            headers.append(header)
            slices += read_slices(file, header, index)
        except VolumeError as error:
            if error.reason in _VANISHED:
                sentence = f"a slice of the series cannot be read: {error.sentence}"
                raise VolumeError("unreadable_slice", sentence) from None
            raise
    return headers, slices


def _without_copies(headers: list[Header], slices: list[Slice]) -> tuple[list[Slice], set[str]]:
    """Each SOP instance once: the same instance at the same place is a copy of a file."""
    seen: dict[tuple, Slice] = {}
    for s in slices:
        instance = headers[s.file].instance
        seen.setdefault((instance or s.file, s.frame, s.position), s)
    return list(seen.values()), {"duplicate_files"} if len(seen) < len(slices) else set()


def _kind(headers: list[Header], settings: ReadingSettings) -> Kind:
    modalities = {header.modality for header in headers} - {None}
    if len(modalities) > 1:
        raise VolumeError("mixed_geometry", "CT and MR slices in one series: export them apart")
    modality = settings.modality or next(iter(modalities), None)
    if modality is None:
        raise VolumeError("not_an_image_volume", "it is neither CT nor MR: set modality if it should be read as one")
    return Kind(modality, headers[0].contrast)


def _read_values(
    source: Source, headers: list[Header], stack: Stack, settings: ReadingSettings
) -> tuple[np.ndarray, np.ndarray | None, set[str]]:
    """float32 [column, row, slice] with the slices contiguous; bool of the same grid or None; notes."""
    columns, rows, depth = stack.shape
    check_size(stack.shape, settings)
    out = np.empty((depth, rows, columns), np.float32)
    padded = np.zeros(out.shape, bool) if any(headers[s.file].padding for s in stack.slices) else None
    wanted: dict[int, dict[int, int]] = defaultdict(dict)
    for n, s in enumerate(stack.slices):
        wanted[s.file][s.frame] = n
    applied = settings.hu_already_applied and _is_hu(source, headers, stack)
    for index, frames in wanted.items():
        for frame, stored in read_frames(source.paths[index], headers[index], list(frames)):
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
    valid = None if padded is None or not padded.any() else ~padded
    return out.T, None if valid is None else valid.T, {"hu_already_applied"} if applied else set()


def _padding_mask(stored: np.ndarray, header: Header) -> np.ndarray | None:
    if header.padding is None:
        return None
    low, high = header.padding
    mask = stored == low if low == high else (stored >= low) & (stored <= high)
    return mask if mask.any() else None


def _is_hu(source: Source, headers: list[Header], stack: Stack) -> bool:
    """True for CT whose stored numbers reach air before the rescale takes them there; all slices decide together."""
    if any(headers[s.file].modality != "CT" or s.intercept > _AIR_AT_MOST for s in stack.slices):
        return False
    for s in stack.slices:
        for _, stored in read_frames(source.paths[s.file], headers[s.file], [s.frame]):
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
