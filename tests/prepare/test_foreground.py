import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from wavespark.prepare.foreground import box_around, find_foreground


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


def truth(shape, scale):
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return sum((g / r) ** 2 for g, r in zip(grid, (0.7, 0.75, 0.8), strict=True)) < scale


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_the_head_is_found_whole_without_air_or_table(head, modality):
    shape = (60, 70, 56)
    mask = find_foreground(head(shape, modality), np.diag([3, 3, 3, 1]), modality)
    assert dice(mask, truth(shape, 1)) > 0.95
    assert not mask[:, 1:3].any()


def test_dark_cavities_inside_are_part_of_it(head):
    voxels = head((60, 70, 56))
    voxels[25:35, 30:40, 24:32] = 0  # ventricles
    mask = find_foreground(voxels, np.diag([3, 3, 3, 1]), "MR")
    assert mask[25:35, 30:40, 24:32].all()


def test_it_does_not_depend_on_scale_or_offset_of_mr(head):
    voxels = head((40, 44, 40))
    affine = np.diag([4, 4, 4, 1])
    assert np.array_equal(find_foreground(voxels, affine, "MR"), find_foreground(voxels * 37 - 500, affine, "MR"))


def test_thick_slices_work(head):
    voxels = head((60, 70, 56))[:, :, ::4]
    assert dice(find_foreground(voxels, np.diag([3, 3, 12, 1]), "MR"), truth((60, 70, 56), 1)[:, :, ::4]) > 0.9


def test_a_field_of_view_inside_the_head_is_all_head():
    noise = np.random.default_rng(0).normal(100, 5, (30, 30, 30)).astype(np.float32)
    assert find_foreground(noise, np.eye(4), "MR").mean() > 0.95
    assert find_foreground(noise - 60, np.eye(4), "CT").all()


def test_only_a_constant_volume_has_none():
    assert not find_foreground(np.full((8, 8, 8), -1000, np.float32), np.eye(4), "CT").any()
    assert not find_foreground(np.zeros((8, 8, 8), np.float32), np.eye(4), "MR").any()


def test_the_box_holds_every_voxel_of_the_mask_and_the_margin():
    mask = np.zeros((20, 30, 40), bool)
    mask[5:8, 10, 38:40] = True
    assert box_around(mask, (1.0, 2.0, 3.0), 5.0) == (slice(0, 13), slice(7, 14), slice(36, 40))


@pytest.mark.parametrize("name", ["cranium_ct", "mni152_t1", "colin27_ch2"])
def test_real_heads(real_data, name):
    image = nib.load(real_data / f"{name}.nii.gz")
    voxels = image.get_fdata(dtype=np.float32)
    mask = find_foreground(voxels, image.affine, "CT" if "ct" in name else "MR")
    if name == "mni152_t1":  # brain on zeros: what it must find is known
        assert dice(mask, voxels > 0) > 0.97
    elif name == "colin27_ch2":
        brain = nib.load(real_data / "colin27_ch2bet.nii.gz").get_fdata() > 0
        assert mask[brain].mean() > 0.999
    else:
        bone = nib.load(real_data / "cranium_ct_bone_mask.nii.gz").get_fdata() > 0
        pieces, _ = ndimage.label(bone)
        sizes = np.bincount(pieces.ravel())
        sizes[0] = 0
        skull, holder = np.argsort(sizes)[[-1, -2]]  # the head holder is as bright as bone
        assert mask[pieces == skull].mean() > 0.98
        assert mask[pieces == holder].mean() < 0.02
        assert (voxels[mask] < -500).mean() < 0.05


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_a_thick_thing_beside_the_head_is_left_out(head, modality):
    voxels = head((60, 90, 56), modality)
    voxels[20:40, 1:8, 20:40] = 100  # a bag of fluid
    mask = find_foreground(voxels, np.diag([3, 3, 3, 1]), modality)
    assert not mask[20:40, 1:8, 20:40].any()
    assert mask[30, 45, 28]
