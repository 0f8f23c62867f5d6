"""Analyze 7.5: a `.hdr` and an `.img` of the same name. nibabel reads the header, with SPM's scale
and origin.

The format does not say which side is left: columns run to the left, as in SPM and FSL, hence the
note `no_orientation`.
Source: https://eeg.sourceforge.net/ANALYZE75.pdf.
"""

import math

import numpy as np
from nibabel.spm99analyze import Spm99AnalyzeHeader

from wavespark.errors import VolumeError
from wavespark.volumes.files import open_regular, read_exactly
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.pairs import read_image
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.streams import plain_reader

_DTYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8"}
_BYTES = 348


def load_analyze(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Read one pair, given its `.hdr`.

    Returns:
        Values float32 [i, j, k], the affine [4, 4] to RAS mm, and notes.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        data = read_exactly(plain_reader(file), _BYTES)
    with unquoted("corrupt", "its Analyze header cannot be parsed"):
        header = Spm99AnalyzeHeader(data, check=False)
        dimensions = int(header["dim"][0])
        shape = tuple(int(n) for n in header["dim"][1 : max(dimensions, 0) + 1])
        code = int(header["datatype"])
        scale, offset = float(header["scl_slope"]), float(header["vox_offset"])
        affine = np.asarray(header.get_best_affine(), np.float64)
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    count = check_size(shape, settings)
    if code not in _DTYPES:
        raise VolumeError(
            "unsupported_dtype", f"Analyze data type {code} (bits, complex or colour) is not one number a voxel"
        )
    check_affine(affine)
    if not math.isfinite(offset) or not 0 <= offset <= 1 << 24:
        raise VolumeError("corrupt", "vox_offset points nowhere")
    slope = scale if math.isfinite(scale) and scale != 0 else 1.0
    voxels = read_image(path, int(offset), np.dtype(_DTYPES[code]).newbyteorder(header.endianness), count, slope, 0.0)
    return voxels.reshape(shape, order="F"), affine, {"no_orientation"}
