"""NIfTI-1 and NIfTI-2: one file or a pair of `.hdr` and `.img`; plain, gzip, bzip2, xz or
zstandard.

nibabel reads the header; the voxels are read here, because nibabel believes what a header declares,
accepts a wrong checksum and inflates bombs.

Source: https://nifti.nimh.nih.gov/nifti-1 (nifti1.h) and https://nifti.nimh.nih.gov/nifti-2.
"""

import math

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header
from nibabel.quaternions import quat2mat

from wavespark.errors import VolumeError
from wavespark.volumes.files import Reader, drain, open_regular, read_exactly, read_voxels
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.orientation import axis_codes, is_usable
from wavespark.volumes.pairs import read_image
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.streams import plain_reader

_MAX_EXTENSIONS = 1 << 24
_COMPRESSED = (b".gz", b".bz2", b".xz", b".zst")
_QUATERNION_SLACK = 1e-3  # writers round the three stored numbers of a unit quaternion
_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4", 1024: "i8", 1280: "u8"}


def load_nifti(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Read one NIfTI file, or a pair given its `.hdr`.

    Returns:
        Values float32 [i, j, k], the affine [4, 4] to RAS mm, and notes.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        reader = plain_reader(file)
        header, position, pair = _read_header(reader)
        shape = _shape(header)
        count = check_size(shape, settings)
        dtype = _dtype(header)
        slope, intercept = _scaling(header)
        affine, notes = _affine(header)
        check_affine(affine)
        if pair:
            voxels = read_image(path, _offset(header, 0), dtype, count, slope, intercept)
            return voxels.reshape(shape, order="F"), affine, notes
        offset = _offset(header, position)
        declared = offset + count * dtype.itemsize
        if reader is file and file.size < declared:
            there = file.size
            raise VolumeError("truncated", f"{declared} bytes are declared and {there} are there: copy the file again")
        read_exactly(reader, offset - position)
        voxels = read_voxels(reader, dtype, count, slope, intercept).reshape(shape, order="F")
        if reader is not file:
            drain(reader)
    if (reader is not file) != path.lower().endswith(_COMPRESSED):
        notes.add("wrong_extension")
    return voxels, affine, notes


def _read_header(reader: Reader) -> tuple[Nifti1Header, int, bool]:
    """The header, the number of bytes that it took, and True if the voxels lie in another file."""
    start = read_exactly(reader, 348)
    version_2 = start[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
    data = start + (read_exactly(reader, 540 - 348) if version_2 else b"")
    magic = data[4:8] if version_2 else data[344:348]
    pair = magic[:3] in (b"ni1", b"ni2")
    if not pair and magic[:3] not in (b"n+1", b"n+2"):
        raise VolumeError("not_nifti", "it does not have the mark of a NIfTI file")
    with unquoted("corrupt", "its NIfTI header cannot be read"):
        return (Nifti2Header if version_2 else Nifti1Header)(data, check=False), len(data), pair


def _shape(header: Nifti1Header) -> tuple[int, ...]:
    """Dimensions without trailing ones."""
    ndim = int(header["dim"][0])
    if not 1 <= ndim <= 7:
        raise VolumeError("corrupt", f"it declares {ndim} dimensions")
    shape = [int(d) for d in header["dim"][1 : ndim + 1]]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return tuple(shape)


def _dtype(header: Nifti1Header) -> np.dtype:
    code = int(header["datatype"])
    if code not in _DTYPES:
        sentence = f"NIfTI data type {code} (complex, colour or unknown) is not one number a voxel"
        raise VolumeError("unsupported_dtype", sentence)
    return np.dtype(_DTYPES[code]).newbyteorder(header.endianness)


def _scaling(header: Nifti1Header) -> tuple[float, float]:
    """Slope and intercept; a slope of 0 or NaN means that none is set."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise VolumeError("bad_rescale", "scl_slope or scl_inter is not finite")
    return slope, intercept


def _affine(header: Nifti1Header) -> tuple[np.ndarray, set[str]]:
    """The sform if it is usable, else the qform, else the bare spacing; notes where they are not or
    contradict each other.

    A sform that cannot be used (all zeros, not finite) beside a usable qform is passed over with
    `sform_ignored`. Where both are usable the sform wins, as in nibabel and the NIfTI standard's
    method 3; `orientation_conflict` says that they are of different handedness or run along
    different axes, so that left and right may be exchanged.
    """
    sform, qform = _sform(header), _qform(header)
    if sform is None and qform is None:
        with unquoted("bad_affine", "the matrix from voxels to millimetres cannot be made from the header"):
            return np.asarray(header.get_base_affine(), np.float64), {"no_orientation"}
    if sform is None or (not is_usable(sform) and qform is not None and is_usable(qform)):
        if qform is None:
            raise VolumeError("bad_affine", "the matrix from voxels to millimetres cannot be made from the header")
        return qform, set() if sform is None else {"sform_ignored"}
    if qform is not None and is_usable(qform) and is_usable(sform) and _conflict(sform, qform):
        return sform, {"orientation_conflict"}
    return sform, set()


def _sform(header: Nifti1Header) -> np.ndarray | None:
    """The matrix of method 3, None if its code says that there is none."""
    if int(header["sform_code"]) <= 0:
        return None
    rows = [np.asarray(header[name], np.float64) for name in ("srow_x", "srow_y", "srow_z")]
    return np.vstack([*rows, [0.0, 0.0, 0.0, 1.0]])


def _qform(header: Nifti1Header) -> np.ndarray | None:
    """The matrix of method 2, None if its code says that there is none; not finite if the
    quaternion is impossible."""
    if int(header["qform_code"]) <= 0:
        return None
    b, c, d = (float(header[name]) for name in ("quatern_b", "quatern_c", "quatern_d"))
    squares = b * b + c * c + d * d
    if not squares <= 1 + _QUATERNION_SLACK:  # also for values that are not a number
        return np.full((4, 4), np.nan)
    a = math.sqrt(max(1.0 - squares, 0.0))
    scale = 1 / math.sqrt(a * a + squares)
    steps = np.asarray(header["pixdim"][1:4], np.float64) * (1, 1, -1 if float(header["pixdim"][0]) < 0 else 1)
    affine = np.eye(4)
    affine[:3, :3] = quat2mat([a * scale, b * scale, c * scale, d * scale]) * steps
    affine[:3, 3] = [float(header[name]) for name in ("qoffset_x", "qoffset_y", "qoffset_z")]
    return affine


def _conflict(a: np.ndarray, b: np.ndarray) -> bool:
    """True if two affines are of different handedness or run along different axes."""
    return np.linalg.det(a[:3, :3]) * np.linalg.det(b[:3, :3]) < 0 or axis_codes(a) != axis_codes(b)


def _offset(header: Nifti1Header, position: int) -> int:
    """Byte offset of the voxels; header extensions lie before."""
    offset = float(header["vox_offset"])
    if not math.isfinite(offset) or offset > _MAX_EXTENSIONS:
        raise VolumeError("corrupt", "vox_offset points nowhere")
    return max(int(offset), position)
