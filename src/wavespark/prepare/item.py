"""One volume through the recipe: RAS -> spacing -> foreground -> values -> box."""

from dataclasses import dataclass

import numpy as np

from wavespark.errors import VolumeError
from wavespark.prepare.fit import check_head
from wavespark.prepare.foreground import box_around, find_foreground
from wavespark.prepare.intensity import Encoding, encode_ct, encode_mr
from wavespark.prepare.recipe import Recipe
from wavespark.prepare.resample import Spacing, resample
from wavespark.prepare.skull import shows_a_skull
from wavespark.shapes import Triple
from wavespark.volumes import Volume, spacing_of, to_ras


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Item:
    """A prepared volume, ready to be stored."""

    numbers: np.ndarray
    """int16 or float32 [D, H, W]; `encoding` says what they mean."""
    encoding: Encoding
    foreground: np.ndarray
    """bool [D, H, W]."""
    affine: np.ndarray
    """float64 [4, 4]: index of the stored grid to RAS mm."""

    @property
    def size(self) -> Triple:
        """Voxels along D, H, W."""
        d, h, w = self.numbers.shape
        return d, h, w


def target_spacing(own: Spacing, recipe: Recipe) -> Spacing:
    """The voxel size that the recipe asks of a volume with that own voxel size, both along R, A,
    S."""
    if recipe.spacing_mm == "own":
        return own
    target = [recipe.spacing_mm] * 3
    if recipe.slice_spacing_mm != "same":
        thick = max(range(3), key=lambda axis: (own[axis] > 1.05 * min(own)) * own[axis] + 1e-6 * axis)
        target[thick] = recipe.slice_spacing_mm
    d, h, w = target
    return d, h, w


def make_item(volume: Volume, recipe: Recipe, *, only_heads: bool = False) -> Item:
    """The volume as the recipe wants it.

    Args:
        volume: as read.
        recipe: how.
        only_heads: refuse what cannot be a head by size and shape, MR too.

    Raises:
        VolumeError: `not_a_head` if only heads are wanted and it is none, `constant_volume` if
            nothing stands out from the background, `not_3d` if it has several channels.
    """
    if volume.voxels.shape[0] != 1:
        raise VolumeError(
            "not_3d", f"the volume has {volume.voxels.shape[0]} channels; one is wanted. Give each as its own volume"
        )
    voxels, affine = to_ras(volume.voxels[0], volume.affine)
    if recipe.only_heads and volume.modality == "CT" and not shows_a_skull(voxels, affine):
        raise VolumeError("not_a_head", "no skull is to be seen, and the recipe keeps heads only (only_heads)")
    valid = None if volume.valid is None else to_ras(volume.valid, volume.affine)[0]
    if recipe.spacing_mm != "own":
        spacing = target_spacing(spacing_of(affine), recipe)
        if valid is not None:
            valid = resample(valid, affine, spacing, "linear")[0] > 0.5
        voxels, affine = resample(voxels, affine, spacing, recipe.interpolation)
    foreground = find_foreground(voxels, affine, volume.modality)
    if valid is not None:
        foreground &= valid
    if not foreground.any() or float(voxels.min()) == float(voxels.max()):
        raise VolumeError(
            "constant_volume", "nothing in the volume stands out from its background: there is nothing to learn from"
        )
    if only_heads:
        check_head(voxels, affine, foreground, volume.modality, finest_mm=min(volume.spacing))
    if recipe.foreground.crop:
        box = box_around(foreground, spacing_of(affine), recipe.foreground.margin_mm)
        voxels, foreground = voxels[box], foreground[box]
        shift = np.eye(4)
        shift[:3, 3] = [side.start for side in box]
        affine = affine @ shift
    numbers, encoding = (
        encode_ct(voxels, recipe.ct) if volume.modality == "CT" else encode_mr(voxels, foreground, recipe.mr)
    )
    return Item(numbers=numbers, encoding=encoding, foreground=foreground, affine=affine)
