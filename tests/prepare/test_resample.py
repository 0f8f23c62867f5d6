import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from scipy import ndimage

from wavespark.prepare.resample import axis_matrix, gaussian_sigma, is_sheared, resample
from wavespark.volumes import spacing_of

LPS = np.diag([-1.0, -1.0, 1.0])


def smooth(shape, seed=0, sigma=2.0):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma).astype(np.float32)


def to_sitk(array, affine):
    image = sitk.GetImageFromArray(array.transpose(2, 1, 0))
    spacing = np.array(spacing_of(affine))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin((LPS @ affine[:3, 3]).tolist())
    image.SetDirection((LPS @ affine[:3, :3] / spacing).ravel().tolist())
    return image


@pytest.mark.parametrize("kernel", ["linear", "cubic"])
def test_upsampling_equals_simpleitk_on_the_grid_that_the_affine_states(kernel):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = rotation * [0.9, 1.1, 3.0]
    affine[:3, 3] = [10, -20, 30]
    array = smooth((20, 22, 12))
    out, grid = resample(array, affine, (0.8, 1.0, 1.0), kernel)
    order = {"linear": sitk.sitkLinear, "cubic": sitk.sitkBSpline}[kernel]
    expected = sitk.Resample(to_sitk(array, affine), to_sitk(out, grid), sitk.Transform(), order, 0.0)
    expected = sitk.GetArrayFromImage(expected).transpose(2, 1, 0)
    inner = (slice(3, -3),) * 3
    # Keys' cubic and a cubic spline are different interpolants: they agree where the image is smooth.
    tolerance = 1e-5 if kernel == "linear" else 0.03
    assert np.abs(out[inner] - expected[inner]).max() <= tolerance * np.abs(array).max()


def test_downsampling_equals_scipys_gaussian_followed_by_scipys_linear_interpolation():
    array = np.random.default_rng(0).normal(size=(31, 24, 18)).astype(np.float32)
    out, grid = resample(array, np.eye(4), (2.0, 1.5, 3.0), "linear")
    smoothed = ndimage.gaussian_filter(array, [gaussian_sigma(f) for f in (2.0, 1.5, 3.0)], mode="nearest")
    index = np.stack(np.meshgrid(*(np.arange(n) for n in out.shape), [1], indexing="ij"), axis=-1)[..., 0, :]
    where = np.einsum("ab,dhwb->adhw", grid, index)[:3]  # the old grid is in mm already
    expected = ndimage.map_coordinates(smoothed, where, order=1, mode="nearest")
    assert np.abs(out - expected).max() < 1e-5


def test_a_grid_that_fits_already_is_left_alone_to_the_bit():
    array = smooth((8, 9, 10))
    out, grid = resample(array, np.diag([1.0, 1.0004, 0.9997, 1]), (1, 1, 1))
    assert out is array
    assert np.array_equal(grid, np.diag([1.0, 1.0004, 0.9997, 1]))


def test_a_ramp_in_mm_stays_that_ramp_wherever_it_is_resampled():
    affine = np.diag([0.7, 1.3, 2.0, 1.0])
    affine[:3, 3] = [-5, 7, 11]
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (30, 20, 14)), indexing="ij"))
    mm = np.tensordot(affine[:3, :3], index, 1) + affine[:3, 3, None, None, None]
    for spacing in [(1.0, 1.0, 1.0), (0.5, 0.5, 1.0), (2.0, 1.3, 3.1)]:
        for axis in range(3):
            out, grid = resample(mm[axis].astype(np.float32), affine, spacing)
            new = np.arange(out.shape[axis]) * grid[axis, axis] + grid[axis, 3]
            inside = np.moveaxis(out, axis, 0)[4:-4]
            assert np.abs(inside - new[4:-4, None, None]).max() < 1e-3, (spacing, axis)
            assert spacing_of(grid) == pytest.approx(spacing, rel=2e-3)


def test_both_ends_lose_or_gain_the_same():
    _, grid = resample(np.zeros((10, 10, 10), np.float32), np.eye(4), (1.5, 0.4, 3.0))
    out, _ = resample(np.zeros((10, 10, 10), np.float32), np.eye(4), (1.5, 0.4, 3.0))
    middle = grid @ [*((np.array(out.shape) - 1) / 2), 1]
    assert middle[:3] == pytest.approx([4.5, 4.5, 4.5])


def test_detail_finer_than_the_new_voxels_is_blurred_away_and_not_folded_back():
    stripes = np.zeros((64, 8, 8), np.float32)
    stripes[::2] = 1
    out, _ = resample(stripes, np.eye(4), (4.0, 1.0, 1.0), "linear")
    assert np.abs(out[2:-2] - 0.5).max() < 1e-3


def test_rows_add_up_to_one_and_a_constant_stays_constant():
    matrix = axis_matrix(17, np.linspace(-0.6, 16.7, 40), sigma=1.3)
    assert np.abs(matrix.sum(axis=1) - 1).max() < 1e-6
    out, _ = resample(np.full((9, 9, 9), 7.25, np.float32), np.eye(4), (0.6, 1.7, 2.3))
    assert np.abs(out - 7.25).max() < 1e-5


def test_any_memory_order_gives_the_same():
    array = smooth((12, 14, 16))
    for view in (np.asfortranarray(array), array[::-1][::-1], np.ascontiguousarray(array.T).T):
        assert np.array_equal(
            resample(view, np.eye(4), (0.7, 1.6, 1.2))[0], resample(array, np.eye(4), (0.7, 1.6, 1.2))[0]
        )


def test_a_tilted_gantry_is_made_square_and_every_point_keeps_its_place():
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[1, 2] = 0.5  # each slice 0.5 mm further back: about 14 degrees
    assert is_sheared(affine)
    index = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 26, 20)), indexing="ij"))
    mm = np.tensordot(affine[:3, :3], index, 1)
    for axis in range(3):
        out, grid = resample(mm[axis].astype(np.float32), affine, (1, 1, 1), "linear")
        assert not is_sheared(grid)
        new = np.stack(np.meshgrid(*(np.arange(n) for n in out.shape), indexing="ij"))
        place = np.tensordot(grid[:3, :3], new, 1) + grid[:3, 3, None, None, None]
        old = np.tensordot(np.linalg.inv(affine)[:3, :3], place, 1)
        inside = np.all([(o > 1) & (o < n - 2) for o, n in zip(old, mm.shape[1:], strict=True)], axis=0)
        assert inside.mean() > 0.3
        assert np.abs(out - place[axis])[inside].max() < 1e-3
