"""DICOM headers, from an allow-list of tags: pixel format, and the position of each slice or frame.

Enhanced multi-frame objects say it per frame, else shared, else at the top (PS3.3 C.7.6.16).
Decimal strings are parsed here from their bytes: pydicom would quote a value that it cannot parse,
and be slower.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset

from wavespark.errors import VolumeError
from wavespark.volumes.dicom_file import DicomFile, Meta, Pixels
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.series import Slice
from wavespark.volumes.traits import (
    TRAIT_TAGS,
    acquisition_traits,
    label_of_description,
    label_of_image,
    repetition_traits,
    tiles_of,
)


def _tags(*keywords: str) -> dict[str, int]:
    found = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    return {keyword: tag for keyword, tag in found.items() if tag is not None}


_PIXEL_DATA = 0x7FE00010
_CONTRADICTS = "its DICOM header contradicts itself: export it again"
_CLASSES = {
    "CT": ("2", "2.1", "2.2"),
    "MR": ("4", "4.1", "4.3", "4.4"),
}
_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
HEADER_TAGS = _tags(
    "SOPClassUID", "SOPInstanceUID", "Modality", "InstanceNumber", "NumberOfFrames", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "PixelRepresentation",
    "PixelPaddingValue", "PixelPaddingRangeLimit", "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", *_GROUPS,
)  # fmt: skip
"""The allow-list of geometry and values."""

ALLOWED_TAGS = (*HEADER_TAGS.values(), *TRAIT_TAGS)
"""The allow-list of reading.

Descriptions are only matched against the closed vocabulary of contrasts.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Header:
    """Header values that hold for all frames of one file."""

    meta: Meta
    pixels: Pixels
    frames: int
    shape: tuple[int, int]
    """Rows, columns."""
    bits: int
    """Bits allocated a pixel: 8, 16 or 32."""
    stored_bits: int
    signed: bool
    padding: tuple[int, int] | None
    """Lowest and highest stored number that means "nothing was measured here"."""
    monochrome1: bool
    modality: str | None
    tiles: int | None
    """Slices beside each other in one picture; 0 if their number is not stated, None for ordinary
    pictures."""
    instance: str
    """SOPInstanceUID. Private."""


def read_header(file: DicomFile) -> Header:
    """The header of one file of a series.

    Raises:
        VolumeError: `no_pixel_data`, `unsupported_dtype`, `not_an_image_volume`, `bad_rescale` or
            `corrupt`.
    """
    if file.pixels is None:
        raise VolumeError("no_pixel_data", "it says that it is an image and holds no pixels: export it again")
    if file.pixels.tag != _PIXEL_DATA:
        raise VolumeError("unsupported_dtype", "its pixels are floating-point or of another kind: convert it to NIfTI")
    with unquoted("corrupt", _CONTRADICTS):
        return _header(file, file.pixels)


def read_slices(file: DicomFile, header: Header, index: int) -> list[Slice]:
    """A slice for each frame of one file.

    Args:
        file: as opened.
        header: its header.
        index: which file of the series it is.

    Raises:
        VolumeError: `bad_rescale` or `corrupt`.
    """
    with unquoted("corrupt", _CONTRADICTS):
        return list(_slices(file.dataset, header, index))


def modality_of(sop_class: str) -> str | None:
    """`CT` or `MR` for the image storage classes of these, else None (PS3.4 B.5)."""
    end = sop_class.removeprefix("1.2.840.10008.5.1.4.1.1.")
    return next((modality for modality, ends in _CLASSES.items() if end in ends), None)


def _header(file: DicomFile, pixels: Pixels) -> Header:
    dataset = file.dataset
    rows, columns, bits = (_whole(dataset, name) for name in ("Rows", "Columns", "BitsAllocated"))
    frames = int(_number(dataset, "NumberOfFrames") or 1)
    if not (rows and columns and rows > 0 and columns > 0 and frames > 0):
        raise VolumeError("corrupt", "its rows, columns or number of frames is missing or not positive")
    stored = _whole(dataset, "BitsStored") or bits
    if bits not in (8, 16, 32) or stored is None or not 1 <= stored <= bits:
        raise VolumeError("unsupported_dtype", f"{stored} of {bits} bits a pixel: 8, 16 and 32 are read")
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2")).strip()
    if (_whole(dataset, "SamplesPerPixel") or 1) != 1 or not photometric.startswith("MONOCHROME"):
        raise VolumeError("not_an_image_volume", "it is a colour picture: only one value a pixel can be a volume")
    if _sequence(dataset, "ModalityLUTSequence"):
        raise VolumeError("bad_rescale", "its values go through a table, not slope and intercept: convert it first")
    signed = _whole(dataset, "PixelRepresentation") == 1
    modality = str(dataset.get("Modality", "")).strip()
    sop_class = str(dataset.get("SOPClassUID", "") or file.meta.media_class).strip()
    return Header(
        meta=file.meta,
        pixels=pixels,
        frames=frames,
        shape=(rows, columns),
        bits=bits,
        stored_bits=stored,
        signed=signed,
        padding=_padding(dataset, bits, signed),
        monochrome1=photometric == "MONOCHROME1",
        modality=modality_of(sop_class) or (modality if modality in ("CT", "MR") else None),
        tiles=tiles_of(dataset),
        instance=str(dataset.get("SOPInstanceUID", "")),
    )


def _slices(dataset: Dataset, header: Header, index: int) -> Iterable[Slice]:
    """A slice a frame; functional groups where there are some."""
    per_frame = _sequence(dataset, _GROUPS[0])
    shared = _sequence(dataset, _GROUPS[1])[:1]
    if per_frame and len(per_frame) != header.frames:
        raise VolumeError("corrupt", f"{header.frames} frames are declared and {len(per_frame)} described")
    number = int(_number(dataset, "InstanceNumber") or 0)
    words = label_of_description(dataset)
    for frame in range(header.frames):
        groups = [*per_frame[frame : frame + 1], *shared]
        transformation = _Lookup(groups, "PixelValueTransformationSequence", dataset)
        yield Slice(
            file=index,
            frame=frame,
            number=number,
            shape=header.shape,
            position=_Lookup(groups, "PlanePositionSequence", dataset).numbers("ImagePositionPatient", 3),
            orientation=_Lookup(groups, "PlaneOrientationSequence", dataset).numbers("ImageOrientationPatient", 6),
            spacing=_Lookup(groups, "PixelMeasuresSequence", dataset).numbers("PixelSpacing", 2),
            slope=transformation.rescale("RescaleSlope", 1.0),
            intercept=transformation.rescale("RescaleIntercept", 0.0),
            traits=acquisition_traits(groups, dataset),
            times=repetition_traits(groups, dataset),
            label=label_of_image(groups, dataset, header.modality, words),
        )


class _Lookup:
    """A functional group of a frame: its own, else the shared one, else the top of the data set."""

    def __init__(self, groups: list[Dataset], sequence: str, top: Dataset) -> None:
        self._places = [item for group in groups for item in _sequence(group, sequence)[:1]] + [top]

    def numbers(self, keyword: str, count: int) -> tuple[float, ...] | None:
        """`count` finite numbers, None if they are missing or not that."""
        place = next((p for p in self._places if keyword in p), None)
        found = None if place is None else _numbers(place, keyword)
        return found if found and len(found) == count and all(map(math.isfinite, found)) else None

    def rescale(self, keyword: str, default: float) -> float:
        """One finite number, not zero for a slope; the default if it is absent or empty."""
        place = next((p for p in self._places if keyword in p), None)
        if place is None or not _raw(place, keyword).strip(b" \x00"):
            return default
        found = _numbers(place, keyword)
        if not found or len(found) != 1 or not math.isfinite(found[0]) or (found[0] == 0 and keyword == "RescaleSlope"):
            raise VolumeError("bad_rescale", "the slope or intercept of its values is zero or not a number")
        return found[0]


def _sequence(dataset: Dataset, keyword: str) -> list[Dataset]:
    return list(dataset[keyword].value or []) if keyword in dataset else []


def _raw(dataset: Dataset, keyword: str) -> bytes:
    """The bytes of a value as stored, without any conversion; empty if it is absent."""
    value = dataset.get_item(keyword).value if keyword in dataset else None
    if isinstance(value, bytes):
        return value
    if value is None:
        return b""
    several = value if hasattr(value, "__iter__") and not isinstance(value, str) else [value]
    return "\\".join(str(v) for v in several).encode("ascii", "replace")


def _numbers(dataset: Dataset, keyword: str) -> tuple[float, ...] | None:
    """Decimal or integer strings; None if any is not a number."""
    try:
        return tuple(float(part) for part in _raw(dataset, keyword).rstrip(b"\x00 ").split(b"\\"))
    except ValueError:
        return None


def _number(dataset: Dataset, keyword: str) -> float | None:
    """One finite number of a string element, else None."""
    found = _numbers(dataset, keyword)
    return found[0] if found and math.isfinite(found[0]) else None


def _whole(dataset: Dataset, keyword: str) -> int | None:
    """A binary whole number, None if it is absent or empty."""
    value = dataset.get(keyword)
    return value if isinstance(value, int) else None


def _padding(dataset: Dataset, bits: int, signed: bool) -> tuple[int, int] | None:
    """PixelPaddingValue to PixelPaddingRangeLimit as stored numbers.

    Writers get the sign of the value's representation wrong (63536 for -2000), so it is wrapped
    into the pixels' range.
    """
    value = _whole(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = _whole(dataset, "PixelPaddingRangeLimit")
    half = 1 << (bits - 1) if signed else 0
    ends = [(v + half) % (1 << bits) - half for v in (value, value if limit is None else limit)]
    return min(ends), max(ends)
