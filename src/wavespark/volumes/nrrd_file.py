"""NRRD with its data in the same file or in one beside it: raw, gzip or bzip2. pynrrd parses the
header.

Source: https://teem.sourceforge.net/nrrd/format.html.
"""

import bz2
from typing import Any

import nrrd
import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated, OpenFile, Reader, drain, open_regular, read_exactly, read_voxels, sibling
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.streams import BZIP2, Unpacked

_MAX_HEADER = 1 << 20
_RAS_SIGNS = {"right": 1, "left": -1, "anterior": 1, "posterior": -1, "superior": 1, "inferior": -1}
_LETTERS = {"r": "right", "l": "left", "a": "anterior", "p": "posterior", "s": "superior", "i": "inferior"}
_TYPES = {
    "i1": ("int8", "int8_t", "signed char"),
    "u1": ("uint8", "uint8_t", "uchar", "unsigned char"),
    "i2": ("int16", "int16_t", "short", "short int", "signed short", "signed short int"),
    "u2": ("uint16", "uint16_t", "ushort", "unsigned short", "unsigned short int"),
    "i4": ("int32", "int32_t", "int", "signed int"),
    "u4": ("uint32", "uint32_t", "uint", "unsigned int"),
    "i8": ("int64", "int64_t", "longlong", "long long", "long long int", "signed long long", "signed long long int"),
    "u8": ("uint64", "uint64_t", "ulonglong", "unsigned long long", "unsigned long long int"),
    "f4": ("float",),
    "f8": ("double",),
}


def load_nrrd(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Read one `.nrrd` or `.nhdr` file.

    Returns:
        Values float32 [i, j, k], the affine [4, 4] to RAS mm, and notes.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        header = _read_header(file)
        shape = tuple(int(n) for n in header["sizes"])
        count = check_size(shape, settings)
        dtype = _dtype(header)
        affine, notes = _affine(header)
        check_affine(affine)
        elsewhere = _data_file(path, header)
        if elsewhere is None:
            voxels = _read(file, header, dtype, count)
        else:
            with open_regular(elsewhere) as data:
                voxels = _read(data, header, dtype, count)
    return voxels.reshape(shape, order="F"), affine, notes


def _data_file(path: bytes, header: dict[str, Any]) -> bytes | None:
    """The path of a detached data file, None if the data follow the header."""
    name = next((header[field] for field in ("data file", "datafile") if field in header), None)
    if name is None:
        return None
    if not isinstance(name, str) or name.split()[:1] == ["LIST"] or "%" in name:
        raise VolumeError("unsupported_format", "its data lie in several files: convert it to one .nrrd")
    return sibling(path, name)


def _read(file: OpenFile, header: dict[str, Any], dtype: np.dtype, count: int) -> np.ndarray:
    """`count` values of the file that holds the data."""
    reader = _reader(file, header, count * dtype.itemsize)
    voxels = read_voxels(reader, dtype, count)
    if reader is not file:
        drain(reader)
    return voxels


def _read_header(file: OpenFile) -> dict[str, Any]:
    """The fields; the file is left where the data begin."""
    lines = []
    while (line := file.readline(_MAX_HEADER)).strip():
        lines.append(line)
        if file.tell() > _MAX_HEADER:
            raise VolumeError("corrupt", "its NRRD header does not end")
    with unquoted("corrupt", "its NRRD header cannot be parsed"):
        header = nrrd.read_header(lines)
        if len(header["sizes"]) != int(header["dimension"]) or "type" not in header:
            raise VolumeError("corrupt", "its NRRD header contradicts itself")
    return header


def _dtype(header: dict[str, Any]) -> np.dtype:
    name = str(header["type"]).lower()
    code = next((code for code, names in _TYPES.items() if name in names), None)
    if code is None:
        raise VolumeError("unsupported_dtype", "its NRRD type is not one number a voxel")
    return np.dtype(code).newbyteorder(">" if header.get("endian") == "big" else "<")


def _affine(header: dict[str, Any]) -> tuple[np.ndarray, set[str]]:
    """Space directions (a vector an axis) and origin, turned to RAS; bare spacings with a note."""
    with unquoted("bad_affine", "the matrix from voxels to millimetres cannot be made from the header"):
        affine = np.eye(4)
        if "space directions" not in header:
            spacings = np.asarray(header.get("spacings", np.ones(3)), np.float64)
            affine[:3, :3] = np.diag(np.where(np.isnan(spacings), 1.0, spacings))
            return affine, {"no_orientation"}
        affine[:3, :3] = np.array(header["space directions"], np.float64).T
        affine[:3, 3] = np.array(header.get("space origin", np.zeros(3)), np.float64)
        space = str(header.get("space", "")).lower()
        words = [_LETTERS.get(c, "") for c in space] if len(space) == 3 else space.split("-")
        if len(words) != 3 or not all(word in _RAS_SIGNS for word in words):
            return affine, {"no_orientation"}
        return np.diag([*(float(_RAS_SIGNS[word]) for word in words), 1.0]) @ affine, set()


def _reader(file: OpenFile, header: dict[str, Any], size: int) -> Reader:
    """The plain bytes of the voxels."""
    encoding = str(header.get("encoding", "")).lower()
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    for _ in range(min(int(header.get("line skip", header.get("lineskip", 0))), _MAX_HEADER)):
        file.readline(_MAX_HEADER)
    if encoding == "raw":
        offset = file.size - size if skip == -1 else file.tell() + skip
        if offset < file.tell() or file.size < offset + size:
            raise VolumeError("truncated", f"{size} bytes of voxels are declared, fewer are there: copy the file again")
        file.seek(offset)
        return file
    reader: Reader
    if encoding in ("gzip", "gz"):
        reader = Inflated(file)
    elif encoding in ("bzip2", "bz2"):
        reader = Unpacked(file, bz2.BZ2Decompressor, BZIP2)
    else:
        raise VolumeError("unsupported_format", "its NRRD encoding is none of raw, gzip and bzip2: convert it")
    if skip < 0 or skip > _MAX_HEADER:
        raise VolumeError("corrupt", "its byte skip points nowhere")
    read_exactly(reader, skip)
    return reader
