import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from wavespark.errors import VolumeError
from wavespark.prepare import load_recipe
from wavespark.prepare.item import make_item
from wavespark.prepare.labels import resample_labels

LPS = np.diag([-1.0, -1.0, 1.0])


def blobs(shape=(30, 34, 20)):
    grid = np.meshgrid(*(np.arange(n) for n in shape), indexing="ij")
    out = np.zeros(shape, np.int16)
    for label, (centre, radius) in enumerate([((10, 12, 8), 6), ((20, 20, 12), 5), ((8, 26, 14), 4)], 1):
        out[sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) < radius**2] = label * 3
    return out


def dice(a, b):
    return 2 * (a & b).sum() / max(1, a.sum() + b.sum())


def tilted(spacing):
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(np.eye(3) + 0.2 * np.random.default_rng(0).normal(size=(3, 3)))[0] * spacing
    affine[:3, 3] = [5, -7, 9]
    return affine


def to_sitk(array, affine):
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    spacing = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    image.SetDirection((LPS @ affine[:3, :3] / spacing).ravel().tolist())
    return image


def test_labels_lie_where_simpleitk_puts_them():
    labels, affine = blobs(), tilted([1.0, 1.0, 2.0])
    size, grid = (40, 42, 44), tilted([0.8, 0.8, 0.9])
    ours = resample_labels(labels, affine, size, grid)
    reference = to_sitk(np.zeros(size, np.int16), grid)
    shares = []
    for label in (0, 3, 6, 9):
        one = to_sitk((labels == label).astype(np.float32), affine)
        share = sitk.Resample(one, reference, sitk.Transform(), sitk.sitkLinear, float(label == 0), sitk.sitkFloat32)
        shares.append(sitk.GetArrayFromImage(share).transpose(2, 1, 0))
    theirs = np.array([0, 3, 6, 9])[np.argmax(shares, axis=0)]
    assert (ours != 0).sum() > 1000
    assert (ours != theirs).mean() < 1e-3


def test_the_same_grid_gives_the_same_labels_and_flips_are_exact():
    labels, affine = blobs(), tilted([1.0, 1.0, 2.0])
    assert np.array_equal(resample_labels(labels, affine, labels.shape, affine), labels)
    flip = np.eye(4)
    flip[0, 0], flip[0, 3] = -1, labels.shape[0] - 1
    assert np.array_equal(resample_labels(labels, affine, labels.shape, affine @ flip), labels[::-1])
    assert not resample_labels(np.zeros((4, 4, 4), int), np.eye(4), (3, 3, 3), np.eye(4)).any()


def test_a_segmentation_follows_its_volume_through_the_recipe_and_back(volume):
    labels, affine = blobs(), tilted([1.1, 1.0, 2.0])
    item = make_item(
        volume(100.0 + 10 * labels.astype(np.float32), affine),
        load_recipe("head-1mm", ["mr.values=raw", "foreground.crop=false"]),
    )
    on_grid = resample_labels(labels, affine, item.numbers.shape, item.affine)
    intensity = item.encoding.decode(item.numbers)[0]
    for label in (3, 6, 9):
        assert abs(np.median(intensity[on_grid == label]) - (100 + 10 * label)) < 1
    again = resample_labels(on_grid, item.affine, labels.shape, affine)
    assert min(dice(again == label, labels == label) for label in (3, 6, 9)) > 0.93


def test_downsampling_keeps_volumes_and_makes_no_new_label():
    labels = blobs((60, 68, 40))
    small = resample_labels(labels, np.eye(4), (20, 23, 14), np.diag([3.0, 3, 3, 1]))
    for label in (3, 6, 9):
        assert (small == label).sum() * 27 == pytest.approx((labels == label).sum(), rel=0.25)


def test_labels_that_are_no_whole_numbers_or_have_no_place_are_refused():
    with pytest.raises(VolumeError, match="whole numbers"):
        resample_labels(np.full((3, 3, 3), 0.5), np.eye(4), (3, 3, 3), np.eye(4))
    with pytest.raises(VolumeError, match="inverted"):
        resample_labels(np.zeros((3, 3, 3)), np.zeros((4, 4)), (3, 3, 3), np.eye(4))
