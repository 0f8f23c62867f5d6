"""Segmentations and masks as they lie in files: whole numbers with their place in space."""

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.analyze import load_analyze
from wavespark.volumes.files import open_regular
from wavespark.volumes.metaimage import load_metaimage
from wavespark.volumes.mgh import load_mgh
from wavespark.volumes.nifti import load_nifti
from wavespark.volumes.nrrd_file import load_nrrd
from wavespark.volumes.privacy import unquoted
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.sniff import sniff

_LOADERS = {
    "nifti": load_nifti,
    "analyze": load_analyze,
    "nrrd": load_nrrd,
    "metaimage": load_metaimage,
    "mgh": load_mgh,
}
_KINDS = (np.uint8, np.int16, np.int32)


def read_label_map(path: bytes, settings: ReadingSettings | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A label map and its affine: uint8, int16 or int32 [i, j, k], whichever is enough; float64 [4,
    4], index to RAS mm.

    Args:
        path: a NIfTI, Analyze, NRRD, MetaImage or MGH file.
        settings: limits.

    Raises:
        VolumeError: `unsupported_dtype` if it holds more than whole numbers, `unsupported_format`,
            and those of the format.
    """
    try:
        with unquoted("corrupt", "a label map cannot be read: its content contradicts its format"):
            with open_regular(path) as file:
                kind, _ = sniff(file)
            if kind not in _LOADERS:
                raise VolumeError(
                    "unsupported_format",
                    "a label map must be NIfTI, Analyze, NRRD, MetaImage or MGH: convert it to .nii.gz",
                )
            values, affine, _ = _LOADERS[kind](path, settings or ReadingSettings())
    except MemoryError:
        raise VolumeError("too_large", "a label map does not fit into memory: use a larger machine") from None
    if not np.isfinite(values).all() or not np.array_equal(values, np.rint(values)):
        raise VolumeError("unsupported_dtype", "a label map must hold whole numbers")
    low, high = float(values.min()), float(values.max())
    for kind_of_number in _KINDS:
        limits = np.iinfo(kind_of_number)
        if limits.min <= low and high <= limits.max and max(-low, high) <= 2**24:
            return values.astype(kind_of_number), affine
    raise VolumeError("unsupported_dtype", f"labels must lie within 2^24, this map has {low:g} to {high:g}")
