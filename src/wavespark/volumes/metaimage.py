"""MetaImage: `.mha`, or `.mhd` with its data in another file of the same folder. Raw or zlib.

Source: https://itk.org/Wiki/ITK/MetaIO/Documentation. Millimetres are LPS, the rows of
TransformMatrix are the directions of the axes.
"""

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated, OpenFile, Reader, drain, open_regular, read_exactly, read_voxels, sibling
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.orientation import LPS_TO_RAS
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings

_MAX_HEADER = 1 << 16
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4", "MET_DOUBLE": "f8",
}  # fmt: skip


def load_metaimage(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Read one `.mha` or `.mhd` file.

    Returns:
        Values float32 [i, j, k], the affine [4, 4] to RAS mm, and notes.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        fields = _read_fields(file)
        with unquoted("corrupt", "its MetaImage header cannot be parsed"):
            shape = tuple(int(n) for n in fields["dimsize"].split())
            if len(shape) != int(fields["ndims"]):
                raise VolumeError("corrupt", "its MetaImage header contradicts itself")
            channels = int(fields.get("elementnumberofchannels", "1"))
            skip = int(fields.get("headersize", "0"))
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        count = check_size(shape, settings)
        if channels != 1 or fields.get("elementtype", "").upper() not in _TYPES:
            raise VolumeError("unsupported_dtype", "its MetaImage type is not one number a voxel")
        big = "true" in (
            fields.get("elementbyteordermsb", "").lower(),
            fields.get("binarydatabyteordermsb", "").lower(),
        )
        dtype = np.dtype(_TYPES[fields["elementtype"].upper()]).newbyteorder(">" if big else "<")
        affine, notes = _affine(fields, len(fields["dimsize"].split()))
        check_affine(affine)
        compressed = fields.get("compresseddata", "").lower() == "true"
        data_file = fields["elementdatafile"]
        if data_file.upper() == "LOCAL":
            voxels = _read(file, compressed, skip, dtype, count)
        else:
            if data_file.upper().startswith("LIST") or "%" in data_file:
                raise VolumeError("unsupported_format", "its data lie in a file a slice: write it as one .mha")
            with open_regular(sibling(path, data_file)) as data:
                voxels = _read(data, compressed, skip, dtype, count)
    return voxels.reshape(shape, order="F"), affine, notes


def _read_fields(file: OpenFile) -> dict[str, str]:
    """The header's fields by lower-case key, up to ElementDataFile, which is the last; the file is
    left behind it."""
    fields: dict[str, str] = {}
    while "elementdatafile" not in fields:
        line = file.readline(_MAX_HEADER)
        if not line or file.tell() > _MAX_HEADER:
            raise VolumeError("corrupt", "its MetaImage header does not end with ElementDataFile")
        key, equals, value = line.decode("utf-8", "surrogateescape").partition("=")
        if equals:
            fields[key.strip().lower()] = value.strip()
    if not {"ndims", "dimsize"} <= set(fields):
        raise VolumeError("corrupt", "its MetaImage header does not state its dimensions")
    return fields


def _affine(fields: dict[str, str], dimensions: int) -> tuple[np.ndarray, set[str]]:
    """Directions x spacing and origin, turned from LPS to RAS; the note `no_orientation` where no
    direction is stated."""
    with unquoted("bad_affine", "the matrix from voxels to millimetres cannot be made from the header"):
        matrix = next((fields[k] for k in ("transformmatrix", "orientation", "rotation") if k in fields), None)
        origin = next((fields[k] for k in ("offset", "position", "origin") if k in fields), None)
        spacing = next((fields[k] for k in ("elementspacing", "elementsize") if k in fields), None)
        axes = (
            np.eye(dimensions)
            if matrix is None
            else np.array(matrix.split(), np.float64).reshape(dimensions, dimensions)
        )
        steps = np.ones(dimensions) if spacing is None else np.array(spacing.split(), np.float64)
        start = np.zeros(dimensions) if origin is None else np.array(origin.split(), np.float64)
        affine = np.eye(4)
        affine[:3, :3] = axes[:3, :3].T * steps[:3]
        affine[:3, 3] = start[:3]
    return LPS_TO_RAS @ affine, {"no_orientation"} if matrix is None else set()


def _read(file: OpenFile, compressed: bool, skip: int, dtype: np.dtype, count: int) -> np.ndarray:
    """`count` values from where the file is positioned.

    Args:
        file: the header's file behind the header, or the data file at its start.
        compressed: True for a zlib stream.
        skip: bytes before the values; -1 if the values are the last bytes of the file.
        dtype: of the stored numbers.
        count: number of values.
    """
    if compressed:
        reader: Reader = Inflated(file, wbits=47)  # zlib or gzip, by its first bytes
        voxels = read_voxels(reader, dtype, count)
        drain(reader)
        return voxels
    size = count * dtype.itemsize
    start = file.tell()
    if skip == -1:
        start = max(file.size - size, start)
        file.seek(start)
    elif not 0 <= skip <= file.size:
        raise VolumeError("corrupt", "HeaderSize points nowhere")
    elif skip:
        read_exactly(file, skip)
        start += skip
    if file.size < start + size:
        raise VolumeError(
            "truncated",
            f"{size} bytes of voxels are declared and {max(file.size - start, 0)} are there: copy the file again",
        )
    return read_voxels(file, dtype, count)
