"""Painted heads: a map of anatomical labels becomes an image of a random contrast, and its labels
become classes.

Painting follows Billot et al., "SynthSeg" (Medical Image Analysis 2023): a mean and a standard
deviation for every label, blur, a smooth gain, a contrast curve and noise, all drawn at random.
Label values are those of FreeSurfer; values from 500 on are tissue outside the brain.
Axes: i j k as in the label map.
"""

import gzip
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from wavespark.errors import SettingsError
from wavespark.files import write_file, writing
from wavespark.progress import OnProgress, ignore_progress
from wavespark.randomness import stream
from wavespark.samples.fields import SmoothField
from wavespark.volumes import read_label_map

UNKNOWN = 255
"""Class of voxels that no one should learn from, for example lesions."""

CLASSES: Mapping[str, tuple[int, ...]] = {
    "background": (0,),
    "ventricles": (4, 5, 14, 15, 43, 44, 72),
    "outer fluid": (24,),
    "cortex": (3, 42),
    "white matter": (2, 41, 30, 62, 85, 251, 252, 253, 254, 255),
    "thalamus": (10, 49),
    "caudate": (11, 26, 50, 58),
    "lentiform nucleus": (12, 13, 51, 52, 136, 137, 163, 164),
    "hippocampus and amygdala": (17, 18, 53, 54),
    "cerebellar cortex": (8, 47),
    "cerebellar white matter": (7, 46),
    "brain stem": (16, 28, 60),
    "outside the brain": (),
}
"""Anatomical classes in the order of their numbers, with the FreeSurfer labels of each."""

_OUTSIDE_FROM, _OUTSIDE = 500, list(CLASSES).index("outside the brain")
_FLUID = [1, 2]
_LESIONS = (25, 57)
_HIGHEST = 1 << 15
_T1: tuple[tuple[float, float], ...] = (
    (0.12, 0.3),
    (0.12, 0.32),
    (0.45, 0.62),
    (0.75, 0.95),
    (0.58, 0.75),
    (0.5, 0.66),
    (0.6, 0.8),
    (0.47, 0.64),
    (0.45, 0.62),
    (0.72, 0.92),
    (0.68, 0.88),
)
"""Ranges of the mean of classes 1 to 11 in a T1-like image.

Chosen by eye; no labelled image set them, so that what is learned from painted heads can be tested
on any.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Painting:
    """A painted head.

    Attributes:
        voxels: float32 [i, j, k]; arbitrary units, at least 0.
        classes: uint8 [i, j, k], numbers of `CLASSES`; `UNKNOWN` where nothing should be learned.
        style: `T1`, `T2` or `random`.
    """

    voxels: np.ndarray
    classes: np.ndarray
    style: str


def classes_of(labels: np.ndarray) -> np.ndarray:
    """Map FreeSurfer labels to the numbers of `CLASSES`.

    Args:
        labels: whole numbers of any shape.

    Returns:
        uint8 of the same shape; `UNKNOWN` for lesions and labels that are not in the table.

    Raises:
        SettingsError: if a label is negative or above 32767.
    """
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if lowest < 0 or highest >= _HIGHEST:
        raise SettingsError(f"labels run from {lowest} to {highest}: FreeSurfer's lie between 0 and {_HIGHEST - 1}")
    table = np.full(_HIGHEST, UNKNOWN, np.uint8)
    table[_OUTSIDE_FROM:] = _OUTSIDE
    for number, values in enumerate(CLASSES.values()):
        table[list(values)] = number
    return table[labels]


def paint(labels: np.ndarray, affine: np.ndarray, *, seed: int, name: str = "") -> Painting:
    """Paint a label map in a random contrast.

    Half of the images look like T1, a sixth like T2, the others have a random mean for every class.
    Two of five are stripped of everything outside the brain.

    Args:
        labels: FreeSurfer labels [i, j, k].
        affine: [4, 4], index to mm; decides the scale of the smooth gain.
        seed: decides everything, together with `name`.
        name: of the head, so that several heads differ under one seed.

    Raises:
        SettingsError: if a label is not one of FreeSurfer's, or there is no brain in the map.
    """
    classes = classes_of(labels)
    if not ((classes > 0) & (classes < _OUTSIDE)).any():
        raise SettingsError("the label map holds none of FreeSurfer's labels of the brain: it cannot be painted")
    rng = stream(seed, purpose="painted head", volume=name)
    style = ("T1", "T2", "random")[int(np.searchsorted((0.5, 0.67), rng.random()))]
    values, index = np.unique(labels, return_inverse=True)
    groups = classes_of(values)
    mean, deviation = _palette(values, groups, style, rng)
    gone = _stripped(groups, rng)
    mean[gone] = deviation[gone] = 0
    index = index.reshape(labels.shape)
    noise = rng.standard_normal(labels.shape, dtype=np.float32)
    voxels = mean[index] + deviation[index] * noise
    voxels = ndimage.gaussian_filter(voxels, rng.uniform(0.15, 0.75, 3))
    voxels *= np.exp(rng.uniform(0, 0.25) * _gain(labels.shape, affine, rng))
    voxels = np.abs(voxels) ** np.float32(np.exp(rng.uniform(-0.3, 0.3)))
    scanner = rng.standard_normal((2, *labels.shape), dtype=np.float32) * np.float32(rng.uniform(0, 0.04))
    voxels = np.hypot(voxels + scanner[0], scanner[1])  # magnitude image: Rician noise
    shown = np.where(gone[index], np.uint8(0), classes)
    return Painting(voxels=voxels.astype(np.float32), classes=shown, style=style)


def _palette(
    values: np.ndarray, groups: np.ndarray, style: str, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each label value, float32 [N]."""
    levels = np.array([rng.uniform(*bounds) for bounds in _T1])
    if style == "T2":
        levels = 1.1 - levels
    elif style == "random":
        levels = rng.uniform(0.05, 1.0, len(_T1))
    mean, deviation = rng.uniform(0.02, 1.1, len(values)), rng.uniform(0.01, 0.15, len(values))
    brain = (groups > 0) & (groups < _OUTSIDE)
    mean[brain] = levels[groups[brain] - 1] + rng.normal(0, 0.015, int(brain.sum()))
    deviation[brain] = rng.uniform(0.01, 0.07, int(brain.sum()))
    air = values == 0
    mean[air], deviation[air] = 0.0, rng.uniform(0, 0.03)
    return np.maximum(mean, 0).astype(np.float32), deviation.astype(np.float32)


def _stripped(groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Label values that skull stripping removes, bool [N]; none in three of five images."""
    strip, fluid_too = rng.random() < 0.4, rng.random() < 0.5
    gone = (groups == _OUTSIDE) | ((groups == _FLUID[1]) & fluid_too)
    return gone & strip


def _gain(shape: Sequence[int], affine: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Logarithm of a smooth gain of deviation about 1, float32 [i, j, k]."""
    spacing = np.sqrt((np.asarray(affine)[:3, :3] ** 2).sum(axis=0))
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing, strict=True)]
    i, j, k = (a.astype(np.float32) for a in axes)
    reach = max(float(abs(a[-1])) for a in axes)
    return SmoothField.draw(rng, step=60.0, extent=max(150.0, reach)).on_grid((i, j, k))


LIST, MAP = "heads.csv", "anatomy"
"""Name of the list of painted heads, and of the map of classes beside each of them."""


def paint_label_maps(
    label_maps: Sequence[Path],
    output: Path,
    *,
    copies: int = 4,
    seed: int = 0,
    on_progress: OnProgress = ignore_progress,
) -> Path:
    """Paint every label map several times into a folder that `prepare` takes.

    Head number n becomes `sub-n_run-k_painted.nii.gz` (int16, 0 to about 1,000 units) and
    `sub-n_run-k_classes.nii.gz`; a list names both. Files that are there already stay.

    Args:
        label_maps: NIfTI, NRRD or MGH files with FreeSurfer's labels, one head each.
        output: folder for the images and the list.
        copies: paintings of each head, each with a contrast of its own.
        seed: random seed.
        on_progress: called with (done, total, message).

    Returns:
        Path of the list, `output/heads.csv`; give it to `wavespark prepare`.

    Raises:
        SettingsError: if there is nothing to paint, or a map is not one of FreeSurfer's labels.
        VolumeError: if a file cannot be read.
        StoreError: if the disk is full or cannot be written.
    """
    if not label_maps or copies < 1:
        raise SettingsError(f"{len(label_maps)} label map(s) x {copies} copies: at least 1 of each is needed")
    rows, total = ["path,modality,label:" + MAP], len(label_maps) * copies
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(label_maps, 1):
        labels, affine = read_label_map(os.fsencode(path))
        for copy in range(1, copies + 1):
            name = f"sub-{number:03d}_run-{copy:02d}"
            image, classes = f"{name}_painted.nii.gz", f"{name}_classes.nii.gz"
            rows.append(f"{image},MR,{classes}")
            if not ((output / image).exists() and (output / classes).exists()):
                painting = paint(labels, affine, seed=seed, name=name)
                _write_nifti(output / classes, painting.classes, affine)
                _write_nifti(output / image, np.rint(painting.voxels * 1000).astype(np.int16), affine)
            on_progress((number - 1) * copies + copy, total, f"{name}, {len(rows) - 1} of {total} heads")
    write_file(output / LIST, ("\n".join(rows) + "\n").encode())
    return output / LIST


def _write_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray) -> None:
    """Write whole numbers with an affine in mm, atomically."""
    image = nibabel.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    write_file(path, gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))
