"""MGH and MGZ (FreeSurfer), plain or gzipped: nibabel reads the header, the voxels are read here.

Source: https://surfer.nmr.mgh.harvard.edu/fswiki/FsTutorial/MghFormat.
"""

import numpy as np
from nibabel.freesurfer.mghformat import MGHHeader

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated, Reader, drain, open_regular, read_exactly, read_voxels
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings

_HEADER = 284
_DTYPES = {0: ">u1", 1: ">i4", 3: ">f4", 4: ">i2", 10: ">u2"}


def load_mgh(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Read one `.mgh` or `.mgz` file.

    Returns:
        Values float32 [i, j, k], the affine [4, 4] to RAS mm, and notes.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        reader: Reader = Inflated(file) if compressed else file
        data = read_exactly(reader, _HEADER)
        with unquoted("corrupt", "its MGH header cannot be parsed"):
            header = MGHHeader(data, check=False)
            shape = tuple(int(n) for n in header["dims"])
            code = int(header["type"])
            oriented = int(header["goodRASFlag"]) > 0
            affine = np.asarray(header.get_affine(), np.float64)
        count = check_size(shape[:3] if shape[3] == 1 else shape, settings)
        if code not in _DTYPES:
            raise VolumeError("unsupported_dtype", f"MGH data type {code} is not one number a voxel")
        dtype = np.dtype(_DTYPES[code])
        check_affine(affine)
        if not compressed and file.size < _HEADER + count * dtype.itemsize:
            raise VolumeError("truncated", "fewer bytes are there than its header declares: copy the file again")
        voxels = read_voxels(reader, dtype, count).reshape(shape[:3], order="F")
        if compressed:
            drain(reader)
    return voxels, affine, set() if oriented else {"no_orientation"}
