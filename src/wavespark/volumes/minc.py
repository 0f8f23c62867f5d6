"""MINC 1 through nibabel's netCDF reader; MINC 2 (HDF5) through h5py, the extra `formats`.

HDF5 files can name data in other files: such a file is refused before anything is read.
"""

from typing import Any

import numpy as np
from nibabel.externals.netcdf import netcdf_file
from nibabel.minc1 import Minc1File
from nibabel.minc2 import Minc2File

from wavespark.errors import VolumeError
from wavespark.volumes.files import OpenFile, open_regular
from wavespark.volumes.finish import check_affine, check_size
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings

_IMAGE = ("minc-2.0", "image", "0")
_UNPARSED = "its MINC content cannot be parsed"


def load_minc(path: bytes, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    """Read one `.mnc` file.

    Returns:
        Values float32 [i, j, k], the affine [4, 4] to RAS mm, and notes.

    Raises:
        VolumeError: see the reason codes in the user guide.
    """
    with open_regular(path) as file:
        start = file.read(3)
        file.seek(0)
        if start != b"CDF":
            return _load_minc_2(file, settings)
        with unquoted("corrupt", _UNPARSED):
            return _values(Minc1File(netcdf_file(file, mmap=False)), settings)


def _load_minc_2(file: OpenFile, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    try:
        import h5py
    except ImportError:
        sentence = "MINC 2 (HDF5) needs h5py. Type: pip install 'wavespark[formats]', and read it again"
        raise VolumeError("unsupported_format", sentence) from None
    with unquoted("corrupt", _UNPARSED), h5py.File(file, "r") as document:
        _check_own_data(document, h5py)
        return _values(Minc2File(document), settings)


def _check_own_data(document: Any, h5py: Any) -> None:
    """Refuses links to other files, and data sets that keep their numbers in other files."""
    place = document
    for name in _IMAGE:
        if not isinstance(place.get(name, getlink=True), h5py.HardLink):
            raise VolumeError("outside_root", "a part of the file is a link to somewhere else: convert it to NIfTI")
        place = place[name]
    for name in place:
        if not isinstance(place.get(name, getlink=True), h5py.HardLink):
            raise VolumeError("outside_root", "a part of the file is a link to somewhere else: convert it to NIfTI")
        data = place[name]
        if isinstance(data, h5py.Dataset) and (data.external or data.is_virtual):
            raise VolumeError("outside_root", "its numbers lie in another file: convert it to NIfTI")


def _values(minc: Any, settings: ReadingSettings) -> tuple[np.ndarray, np.ndarray, set[str]]:
    shape = tuple(int(n) for n in minc.get_data_shape())
    affine = np.asarray(minc.get_affine(), np.float64)
    check_size(shape, settings)
    check_affine(affine)
    return np.asfortranarray(minc.get_scaled_data(), np.float32), affine, set()
