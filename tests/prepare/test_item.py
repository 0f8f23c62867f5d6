import nibabel as nib
import numpy as np
import pytest

from wavespark.errors import VolumeError
from wavespark.prepare import load_recipe
from wavespark.prepare.item import make_item, target_spacing
from wavespark.volumes import spacing_of


def oblique(spacing, seed=0):
    rng = np.random.default_rng(seed)
    axes = np.eye(3)[rng.permutation(3)] * rng.choice([-1, 1], 3)
    tilt = np.linalg.qr(np.eye(3) + 0.1 * rng.normal(size=(3, 3)))[0]
    tilt *= np.sign(np.diag(tilt))
    affine = np.eye(4)
    affine[:3, :3] = tilt @ axes * spacing
    affine[:3, 3] = rng.normal(size=3) * 50
    return affine


@pytest.mark.parametrize("seed", range(8))
def test_native_equals_nibabels_closest_canonical_to_the_bit(head, volume, seed):
    affine = oblique((1.0, 2.0, 3.0), seed)
    voxels = head((20, 24, 18), "CT" if seed % 2 else "MR")
    item = make_item(volume(voxels, affine, "CT" if seed % 2 else "MR"), load_recipe("native"))
    expected = nib.as_closest_canonical(nib.Nifti1Image(voxels, affine))
    assert np.array_equal(item.encoding.decode(item.numbers)[0], expected.get_fdata(dtype=np.float32))
    assert np.allclose(item.affine, expected.affine, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_a_point_in_mm_stays_at_its_place_through_the_whole_recipe(volume, seed):
    affine = oblique((1.2, 0.9, 2.0), seed)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (40, 44, 30)), indexing="ij"))
    mm = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3, None, None, None]
    for axis in range(3):  # the position itself is the intensity
        item = make_item(volume(mm[axis].astype(np.float32), affine), load_recipe("head-1mm", ["mr.values=raw"]))
        new = np.stack(np.meshgrid(*(np.arange(n) for n in item.numbers.shape), indexing="ij"))
        place = np.tensordot(item.affine[:3, :3], new, 1) + item.affine[:3, 3, None, None, None]
        inner = (slice(4, -4),) * 3
        assert np.abs(item.encoding.decode(item.numbers)[0] - place[axis])[inner].max() < 0.01
        assert spacing_of(item.affine) == pytest.approx((1, 1, 1))
        assert np.argmax(np.abs(item.affine[:3, :3]), axis=0).tolist() == [0, 1, 2]
        assert (np.diag(item.affine)[:3] > 0).all()


def test_head_05mm_is_fine_in_the_plane_and_1_mm_across_slices():
    recipe = load_recipe("head-05mm")
    assert target_spacing((0.9, 0.9, 5.0), recipe) == (0.5, 0.5, 1.0)
    assert target_spacing((6.0, 0.9, 0.9), recipe) == (1.0, 0.5, 0.5)
    assert target_spacing((1.0, 1.0, 1.0), recipe) == (0.5, 0.5, 1.0)
    assert target_spacing((0.9, 0.9, 5.0), load_recipe("head-1mm")) == (1.0, 1.0, 1.0)


def test_padding_is_kept_out_of_the_foreground(head, volume):
    voxels = head((30, 34, 28))
    valid = np.ones(voxels.shape, bool)
    valid[:, :, :14] = False
    item = make_item(volume(voxels, np.diag([3, 3, 3, 1]), valid=valid), load_recipe("native"))
    assert not item.foreground[:, :, :14].any()
    assert item.foreground[:, :, 14:].any()


def test_a_volume_without_content_or_with_channels_is_refused(volume):
    flat = np.zeros((8, 8, 8), np.float32)
    for recipe in ("head-1mm", "native"):
        with pytest.raises(VolumeError) as caught:
            make_item(volume(flat, np.eye(4)), load_recipe(recipe))
        assert caught.value.reason == "constant_volume"


def test_a_recipe_gives_the_same_item_every_time(head, volume):
    one, two = (make_item(volume(head(), np.diag([2, 2, 2, 1])), load_recipe()) for _ in range(2))
    assert np.array_equal(one.numbers, two.numbers)
    assert np.array_equal(one.foreground, two.foreground)
