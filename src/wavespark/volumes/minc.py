"""MINC 1 through nibabel; MINC 2 is HDF5 and needs h5py, which is not asked for."""

import numpy as np
from nibabel.externals.netcdf import netcdf_file
from nibabel.minc1 import Minc1File

from wavespark.errors import VolumeError
from wavespark.volumes.files import open_regular
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings


def load_minc(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Of one `.mnc` file: values float32 [i, j, k], affine, and what was odd.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        if file.read(3) != b"CDF":
            raise VolumeError("unsupported_format", "MINC 2 (HDF5) is not read: convert it, for example with mnc2nii")
        file.seek(0)
        with unquoted("corrupt", "its MINC content cannot be parsed"):
            minc = Minc1File(netcdf_file(file, mmap=False))
            shape = tuple(int(n) for n in minc.get_data_shape())
            affine = np.asarray(minc.get_affine(), np.float64)
            check_size(shape, settings)
            check_affine(affine)
            voxels = np.asfortranarray(minc.get_scaled_data(), np.float32)
    return voxels, affine, set()
