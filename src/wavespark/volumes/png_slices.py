"""Folders of 16-bit PNG slices as DeepLesion has them: `NNN.png`, HU = pixel - 32768, spacings in
its DL_info.csv.

Slices are numbered from the head down, rows run to the back and columns to the left; the files do
not say so, hence the note `no_orientation`. Source: K. Yan et al., "DeepLesion", J. Med. Imaging
5(3), 2018, and the README of the data set.
"""

import csv
import io
import os
import re
from collections import defaultdict
from dataclasses import replace

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.files import open_regular, rescale
from wavespark.volumes.finish import check_size, finish
from wavespark.volumes.naming import Kind
from wavespark.volumes.privacy import patient_id, source_id, unquoted
from wavespark.volumes.series import Slice, Stack, arrange, fill_missing
from wavespark.volumes.settings import ASSUME_GEOMETRY, ReadingSettings
from wavespark.volumes.source import Source
from wavespark.volumes.volume import Volume
from wavespark.volumes.walk import Entry, Walk

_NAME = re.compile(rb"(\d{1,6})\.png$", re.IGNORECASE)
_PATIENT = re.compile(rb"(\d+)_\d+_\d+$")
_TABLE = b"DL_info.csv"
_MAX_TABLE = 1 << 27
_ZERO_HU = 32768


def group_png(walk: Walk) -> None:
    """Numbered 16-bit grey slices of a folder become a source; every other picture is no image."""
    folders: dict[bytes, list[Entry]] = defaultdict(list)
    for entry in walk.slices["png"]:
        if _NAME.search(entry.name):
            folders[entry.folder].append(entry)
        else:
            walk.others += 1
    for folder, entries in folders.items():
        try:
            grey = len(entries) > 1 and _header(entries[0].path)[1]
        except VolumeError:
            grey = False
        if not grey:
            walk.others += len(entries)
            continue
        relative = os.fsdecode(folder)
        name = os.path.basename(os.path.dirname(entries[0].path))
        patient = _PATIENT.search(name)
        walk.sources.append(
            Source(
                id=source_id(walk.secret, folder or name),
                kind="png",
                paths=tuple(entry.path for entry in entries),
                patient=patient_id(walk.secret, patient[1] if patient else folder or name),
                relative=relative,
                identity=relative or os.fsdecode(name),
                size=sum(entry.size for entry in entries),
            )
        )


def read_png(source: Source, settings: ReadingSettings) -> Volume:
    """The volume of a folder of slices.

    Raises:
        VolumeError: `bad_spacing` if no table gives the spacings and none are assumed, and those of
            `arrange`.
    """
    spacing = _spacing(source.paths[0])
    slices = []
    for index, path in enumerate(source.paths):
        shape, grey = _header(path)
        if not grey:
            raise VolumeError("unsupported_dtype", "a slice is no 16-bit grey picture")
        slices.append(_slice(index, path, shape, spacing))
    if spacing is None and settings.assume_geometry is None:
        raise VolumeError(
            "bad_spacing",
            f"no DL_info.csv above it says how far apart its pixels are: state it with {ASSUME_GEOMETRY}",
        )
    (stack,) = arrange(slices, replace(settings, allow_uneven=False))  # its numbers leave gaps, never other steps
    check_size(stack.shape, settings)
    values, valid = _read_values(source, stack)
    return finish(
        values,
        stack.affine,
        kind=Kind("CT", None),
        id=source.id,
        patient=source.patient,
        session=source.session,
        notes=set(stack.notes) | {"no_orientation"} | set(source.notes),
        settings=settings,
        valid=valid,
    )


def _slice(index: int, path: bytes, shape: tuple[int, int], spacing: tuple[float, ...] | None) -> Slice:
    found = _NAME.search(path)
    number = int(found[1]) if found else 0
    return Slice(
        file=index,
        frame=0,
        number=number,
        shape=shape,
        position=None if spacing is None else (0.0, 0.0, -number * spacing[2]),
        orientation=None if spacing is None else (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
        spacing=None if spacing is None else (spacing[1], spacing[0]),
    )


def _read_values(source: Source, stack: Stack) -> tuple[np.ndarray, np.ndarray | None]:
    columns, rows, depth = stack.shape
    out = np.empty((depth, rows, columns), np.float32)
    for s, k in zip(stack.slices, stack.depths, strict=True):
        rescale(_pixels(source.paths[s.file], s.shape), 1.0, -float(_ZERO_HU), out=out[k])
    missing = fill_missing(out, stack.depths)
    if not missing:
        return out.T, None
    valid = np.ones(out.shape, bool)
    valid[missing] = False
    return out.T, valid.T


def _pixels(path: bytes, shape: tuple[int, int]) -> np.ndarray:
    """uint16 or int32 [rows, columns]."""
    try:
        from PIL import Image
    except ImportError:
        sentence = "PNG slices need Pillow. Type: pip install pillow, and read it again"
        raise VolumeError("unsupported_format", sentence) from None
    with open_regular(path) as file, unquoted("decode_failed", "a PNG slice cannot be decoded: copy it again"):
        pixels = np.asarray(Image.open(file, formats=["PNG"]))
        if pixels.shape != shape:
            raise VolumeError("decode_failed", "a PNG slice has another size than its header says")
        return pixels


def _header(path: bytes) -> tuple[tuple[int, int], bool]:
    """Rows and columns, and whether it is 16-bit grey (IHDR chunk, PNG specification 11.2.2)."""
    with open_regular(path) as file:
        head = file.read(33)
    if len(head) < 33 or head[12:16] != b"IHDR":
        raise VolumeError("truncated", "a PNG slice ends in its header: copy it again")
    columns, rows = int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    return (rows, columns), head[24:26] == b"\x10\x00"


def _spacing(path: bytes) -> tuple[float, ...] | None:
    """`Spacing_mm_px_` (columns, rows, slices) of the folder in the nearest table, up to three
    folders above it."""
    folder = os.path.dirname(path)
    name = os.path.basename(folder).decode("utf-8", "replace")
    above = folder
    for _ in range(4):
        table = os.path.join(above, _TABLE)
        if os.path.isfile(table):
            return _row(table, name)
        above = os.path.dirname(above)
    return None


def _row(table: bytes, name: str) -> tuple[float, ...] | None:
    with open_regular(table) as file, unquoted("bad_spacing", "DL_info.csv cannot be parsed"):
        if file.size > _MAX_TABLE:
            return None
        text = io.StringIO(file.read().decode("utf-8-sig", "replace"))
        for row in csv.DictReader(text):
            if str(row.get("File_name", "")).rpartition("_")[0] == name:
                spacing = tuple(float(part) for part in str(row["Spacing_mm_px_"]).split(","))
                if len(spacing) == 3 and all(0 < s < 100 for s in spacing):
                    return spacing
                raise VolumeError("bad_spacing", "the spacing in DL_info.csv is impossible")
    return None
