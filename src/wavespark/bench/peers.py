"""The script that people write without wavespark to prepare CT: dcm2niix, then nibabel and scipy,
one series after the other."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

_WINDOWS = ((0.0, 80.0), (-20.0, 180.0), (-800.0, 2000.0))


def dcm2niix() -> str | None:
    """The program: `WAVESPARK_DCM2NIIX`, on the path, or beside this Python; None if it is
    nowhere."""
    named = os.environ.get("WAVESPARK_DCM2NIIX")
    return named or shutil.which("dcm2niix") or shutil.which("dcm2niix", path=str(Path(sys.executable).parent))


def prepare_with_script(program: str, series: Sequence[Path], output: Path) -> None:
    """The same steps as `head-1mm`: RAS, 1 mm, foreground, box, windows; a `.nii.gz` a channel and
    one for the foreground."""
    output.mkdir(parents=True)
    for number, folder in enumerate(series):
        words = [program, "-z", "n", "-b", "n", "-v", "0", "-f", f"s{number}", "-o", str(output), str(folder)]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = output / f"s{number}.nii"
        image = nibabel.as_closest_canonical(nibabel.load(path))
        voxels, spacing = np.asarray(image.get_fdata(dtype=np.float32)), np.array(image.header.get_zooms()[:3])
        sigma = np.sqrt(np.maximum(1 / spacing**2 - 1, 0)) / 2.355
        voxels = ndimage.zoom(ndimage.gaussian_filter(voxels, sigma), spacing, order=3)
        tissue = ndimage.binary_opening(voxels > -300, iterations=4)
        labels, _ = ndimage.label(tissue)
        head = ndimage.binary_fill_holes(labels == 1 + np.argmax(np.bincount(labels.ravel())[1:]))
        box = ndimage.find_objects(head.astype(np.uint8))[0]
        for channel, (low, high) in enumerate(_WINDOWS):
            scaled = (np.clip(voxels[box], low, high) - low) / (high - low)
            numbers = np.rint(scaled * 32767).astype(np.int16)
            nibabel.save(nibabel.Nifti1Image(numbers, np.eye(4)), output / f"s{number}_{channel}.nii.gz")
        nibabel.save(nibabel.Nifti1Image(head[box].astype(np.uint8), np.eye(4)), output / f"s{number}_head.nii.gz")
        path.unlink()
