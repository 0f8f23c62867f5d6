"""Augmentations of a scene: each changes the image, what belongs together stays together, millimetres are millimetres."""

import itertools
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.spatial.transform import Rotation

from wavespark.errors import SettingsError, ShapeError
from wavespark.sampling import CropDataset, Region, split_store
from wavespark.sampling.appearance import with_bias_field, with_gamma, with_noise, with_thick_slices
from wavespark.sampling.augment import STRONG, Augmentation
from wavespark.sampling.augmentation import MOST_BEND_MM
from wavespark.sampling.deform import (
    Deformation,
    control_points,
    deformed,
    margins,
    smooth_field,
    spline_weights,
    turn,
)
from wavespark.sampling.scene import Scene, padded

SIZE, SPACING = (30, 26, 18), (1.0, 0.8, 2.5)
OFF = Augmentation(flip=0, scale=0, shift=0, noise=0)
EACH = {
    "flip": 1.0,
    "rotation_degrees": 20.0,
    "zoom": 0.3,
    "elastic_mm": 6.0,
    "low_resolution_mm": 9.0,
    "bias_field": 0.6,
    "gamma": 0.6,
    "scale": 0.3,
    "shift": 0.3,
    "noise": 0.1,
}
MOVING = ("flip", "rotation_degrees", "zoom", "elastic_mm")
OF_MR_ONLY = ("bias_field", "gamma", "scale", "shift")


def smooth_noise(*shape, seed=0, sigma=2.0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), sigma, axes=(-3, -2, -1))
    return (values / values.std()).astype(np.float32)


def a_scene(channels=1):
    voxels = smooth_noise(channels, *SIZE)
    labels = (np.digitize(voxels[0], [-0.5, 0.5]) * 3).astype(np.uint8)
    return Scene(
        voxels=voxels, maps={"labels": labels, "head": voxels[0] > -1}, points=np.array([[15.0, 12, 8], [9, 14, 10]])
    )


def changed(settings, scene, modality="MR", seed=0, **more):
    return settings.scene(scene, modality=modality, spacing=SPACING, rng=np.random.default_rng(seed), **more)


def test_every_setting_is_tested_here():
    assert {*EACH, "share"} == {f.name for f in fields(Augmentation)}


@pytest.mark.parametrize("name", EACH)
def test_each_change_changes_the_image_every_time_it_comes(name):
    scene = a_scene()
    for seed in range(6):
        assert np.array_equal(changed(OFF, scene, seed=seed).voxels, scene.voxels)
        made = changed(replace(OFF, share=1.0, **{name: EACH[name]}), scene, seed=seed)
        axis_that_was_thick_enough = name == "low_resolution_mm" and np.array_equal(made.voxels, scene.voxels)
        assert np.abs(made.voxels - scene.voxels).mean() > 0.01 or axis_that_was_thick_enough
        assert made.voxels.dtype == np.float32 and made.voxels.shape == scene.voxels.shape
        assert np.allclose(made.points, scene.points) == (name not in MOVING)
        assert name in MOVING or np.array_equal(made.maps["labels"], scene.maps["labels"])


@pytest.mark.parametrize("name", EACH)
def test_a_change_that_is_switched_off_leaves_the_draws_of_the_others_alone(name):
    """With and without it, what the others do to a scene that it cannot touch is the same: here the points."""
    scene = a_scene()
    everything = Augmentation(share=0.6, **EACH)
    for seed in range(8):
        with_it, without = (changed(s, scene, seed=seed) for s in (everything, replace(everything, **{name: 0})))
        if name not in MOVING:
            assert np.array_equal(with_it.points, without.points)
            assert all(np.array_equal(with_it.maps[m], without.maps[m]) for m in scene.maps)


def test_a_change_comes_as_often_as_its_share_says():
    scene = a_scene()
    settings = replace(OFF, gamma=1.0, share=0.3)
    count = sum(not np.array_equal(changed(settings, scene, seed=seed).voxels, scene.voxels) for seed in range(300))
    assert abs(count / 300 - 0.3) < 0.09


def test_the_same_seed_gives_the_same_scene_and_another_another():
    scene = a_scene()
    settings = replace(STRONG, share=1.0)
    first, again, other = (changed(settings, scene, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.voxels, again.voxels) and np.array_equal(first.points, again.points)
    assert not np.array_equal(first.voxels, other.voxels)


@pytest.mark.parametrize("name", OF_MR_ONLY)
def test_what_would_change_the_meaning_of_hu_is_left_alone(name):
    scene = a_scene(channels=3)
    made = changed(replace(OFF, share=1.0, **{name: EACH[name]}), scene, modality="CT")
    assert np.array_equal(made.voxels, scene.voxels)


@pytest.mark.parametrize("name", ["rotation_degrees", "zoom", "elastic_mm"])
def test_labels_and_points_follow_the_image(name):
    """A small bright ball with a label and a point in its middle: after the change the three are still in one place."""
    centre = np.array([16.0, 12, 8])
    mm = (np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1) - centre) * SPACING
    ball = np.exp(-(mm**2).sum(-1) / (2 * 3.0**2)).astype(np.float32)
    scene = Scene(voxels=ball[None], maps={"ball": ball > 0.6}, points=centre[None])
    for seed in range(5):
        made = changed(replace(OFF, share=1.0, **{name: EACH[name]}), scene, seed=seed)
        bright = made.voxels[0] * (made.voxels[0] > 0.3)
        assert np.allclose(ndimage.center_of_mass(bright), made.points[0], atol=0.6)
        assert np.allclose(ndimage.center_of_mass(made.maps["ball"]), made.points[0], atol=0.6)
        assert set(np.unique(made.maps["ball"])) == {False, True}


def test_a_turn_of_an_anisotropic_window_is_a_turn_in_mm():
    """A ball stays a ball (second moments in mm), and points keep their distances."""
    centre = np.array([16.0, 12, 8])
    mm = (np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1) - centre) * SPACING
    ball = np.exp(-(mm**2).sum(-1) / (2 * 4.0**2)).astype(np.float32)
    ends = centre + np.array([[0, 0, 0], [6, 0, 0], [0, 5, 0], [0, 0, 4]])
    made = changed(replace(OFF, share=1.0, rotation_degrees=40), Scene(voxels=ball[None], points=ends), seed=5)
    weights = made.voxels[0] * (made.voxels[0] > 0.2)
    places = np.stack(np.meshgrid(*map(np.arange, SIZE), indexing="ij"), -1) * SPACING
    mean = np.average(places.reshape(-1, 3), axis=0, weights=weights.ravel())
    spread = np.sqrt(np.average((places.reshape(-1, 3) - mean) ** 2, axis=0, weights=weights.ravel()))
    assert np.ptp(spread) < 0.35
    before, after = (np.linalg.norm((p - p[0]) * SPACING, axis=1) for p in (ends, made.points))
    assert np.allclose(before, after, atol=1e-6)


def test_the_turn_is_that_of_scipy():
    for angles in ((10, 0, 0), (0, -20, 0), (0, 0, 30), (12, -25, 40)):
        assert np.allclose(turn(np.array(angles)), Rotation.from_euler("xyz", angles, degrees=True).as_matrix())


def test_zoom_enlarges_by_what_it_says():
    deformation = Deformation(size=SIZE, spacing=SPACING, matrix=np.eye(3) / 1.25)
    middle = (np.array(SIZE) - 1) / 2
    assert np.allclose(deformation.points(middle + np.eye(3)), middle + 1.25 * np.eye(3))


def bent(seed=1, most=5.0):
    rng = np.random.default_rng(seed)
    bend = most * rng.uniform(-1, 1, (3, *control_points(SIZE, SPACING)))
    return Deformation(size=SIZE, spacing=SPACING, matrix=turn(np.array([8.0, -5, 12])) / 1.1, bend=bend)


def test_a_deformed_window_is_what_scipy_reads_at_the_same_places():
    deformation, scene = bent(), a_scene(channels=2)
    sources = deformation.sources()
    before, after = margins(sources)
    wide = padded(scene, before, after)
    made = deformed(wide, before, deformation, sources)
    places = sources + np.array(before)[:, None, None, None]
    for channel, mine in zip(wide.voxels, made.voxels, strict=True):
        assert np.allclose(ndimage.map_coordinates(channel, places, order=1, mode="nearest"), mine, atol=2e-3)
    nearest = ndimage.map_coordinates(wide.maps["labels"], places, order=0, mode="nearest")
    assert (nearest == made.maps["labels"]).mean() > 0.9999
    assert made.maps["labels"].dtype == np.uint8 and made.maps["head"].dtype == bool


def test_margins_are_just_wide_enough():
    sources = bent(most=8).sources()
    before, after = margins(sources)
    for s, b, a, n in zip(sources, before, after, SIZE, strict=True):
        assert s.min() + b >= 0 and s.max() - a <= n - 1
        assert b == 0 or s.min() + b < 1
        assert a == 0 or s.max() - a > n - 2


def test_points_are_the_inverse_of_sources():
    deformation = bent()
    sources = deformation.sources()
    for index in ((5, 6, 7), (20, 15, 3), (14, 13, 9)):
        assert np.allclose(deformation.points(sources[(slice(None), *index)][None])[0], index, atol=1e-3)


def test_the_largest_bend_does_not_fold_space():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        bend = MOST_BEND_MM * rng.uniform(-1, 1, (3, *control_points((40, 40, 40), (2, 2, 2))))
        field = Deformation(size=(40, 40, 40), spacing=(2, 2, 2), matrix=np.eye(3), bend=bend).sources()
        jacobian = np.stack([np.stack(np.gradient(f)) for f in field])
        assert np.linalg.det(np.moveaxis(jacobian, (0, 1), (-2, -1))).min() > 0.02


def test_a_smooth_field_is_scipys_cubic_spline():
    """Between its outermost pieces, `ndimage.map_coordinates` of order 3 without prefilter evaluates the same B-splines."""
    coefficients = np.random.default_rng(0).standard_normal((6, 5, 4))
    size = (31, 21, 11)
    mine = smooth_field(coefficients, [spline_weights(n, c) for n, c in zip(size, coefficients.shape, strict=True)])
    axes = [1 + np.arange(n) * (c - 3) / (n - 1) for n, c in zip(size, coefficients.shape, strict=True)]
    theirs = ndimage.map_coordinates(coefficients, np.meshgrid(*axes, indexing="ij"), order=3, prefilter=False)
    assert np.allclose(mine, theirs, atol=1e-5)


def test_thick_slices_keep_the_mean_lose_detail_and_touch_one_axis():
    voxels = smooth_noise(1, 40, 40, 40, sigma=1.0)
    for axis in range(3):
        made = with_thick_slices(voxels, axis, 4.0)
        assert abs(made.mean() - voxels.mean()) < 0.02
        rough = [
            np.abs(np.diff(made, axis=a + 1)).mean() / np.abs(np.diff(voxels, axis=a + 1)).mean() for a in range(3)
        ]
        assert int(np.argmin(rough)) == axis and rough[axis] < 0.5
        ramp = np.broadcast_to(np.arange(40, dtype=np.float32), (1, 40, 40, 40)).swapaxes(axis + 1, 3)
        inner = (slice(None),) * (axis + 1) + (slice(6, -6),)
        assert np.allclose(with_thick_slices(ramp, axis, 4.0)[inner], ramp[inner], atol=1e-3)
    assert with_thick_slices(voxels, 0, 1.0) is voxels


def test_thick_slices_are_blurred_thinned_and_interpolated_as_scipy_does():
    voxels = np.random.default_rng(0).standard_normal((1, 3, 4, 48)).astype(np.float32)
    old, new = np.arange(48.0), (np.arange(12) + 0.5) * 4 - 0.5
    sigma = np.sqrt(4**2 - 1) / np.sqrt(8 * np.log(2))
    blurred = ndimage.gaussian_filter1d(voxels[0].astype(np.float64), sigma, axis=2, mode="nearest")
    made = with_thick_slices(voxels, 2, 4.0)[0]
    for line, expected in zip(made.reshape(-1, 48), blurred.reshape(-1, 48), strict=True):
        assert np.allclose(line, np.interp(old, new, np.interp(new, old, expected)), atol=1e-5)


def test_a_bias_field_is_a_positive_smooth_gain_above_the_lowest_value():
    voxels = smooth_noise(2, *SIZE)
    made = with_bias_field(voxels, 0.5 * np.random.default_rng(1).uniform(-1, 1, (4, 4, 4)))
    lowest = voxels.min(axis=(1, 2, 3), keepdims=True)
    gain = ((made - lowest) / np.maximum(voxels - lowest, 1e-3))[voxels - lowest > 0.2].reshape(-1)
    assert np.exp(-0.5) <= gain.min() < gain.max() <= np.exp(0.5)
    flat = with_bias_field(
        np.pad(np.ones((1, 20, 20, 20), np.float32), ((0, 0), (1, 0), (0, 0), (0, 0))), np.ones((4, 4, 4))
    )
    assert np.allclose(flat[0, 1:], np.e, atol=1e-4)


def test_gamma_keeps_order_and_ends():
    voxels = smooth_noise(2, *SIZE)
    made = with_gamma(voxels, 1.7)
    for before, after in zip(voxels, made, strict=True):
        assert np.isclose(after.min(), before.min(), atol=1e-5) and np.isclose(after.max(), before.max(), atol=1e-5)
        assert (np.diff(after.ravel()[before.ravel().argsort()]) >= -1e-6).all()
    assert np.allclose(with_gamma(voxels, 1.0), voxels, atol=1e-5)
    constant = np.ones((1, 4, 4, 4), np.float32)
    assert np.isfinite(with_gamma(constant, 0.5)).all()


def test_noise_has_the_deviation_that_was_asked_for():
    added = with_noise(np.zeros((1, 40, 40, 40), np.float32), 0.3, np.random.default_rng(0))
    assert abs(added.std() - 0.3) < 0.005 and abs(added.mean()) < 0.01 and added.dtype == np.float32


@pytest.mark.parametrize(
    ("name", "value"), [*itertools.product(EACH, (-0.1, float("nan"))), ("elastic_mm", 9), ("share", 1.1)]
)
def test_impossible_settings_are_refused_with_the_number(name, value):
    with pytest.raises(SettingsError, match=f"{name} must lie between 0 and .*got {value}"):
        Augmentation(**{name: value})


def test_a_scene_whose_parts_do_not_fit_is_refused():
    with pytest.raises(ShapeError, match="maps"):
        Scene(voxels=np.zeros((1, 4, 4, 4), np.float32), maps={"a": np.zeros((4, 4, 5))})
    with pytest.raises(ShapeError, match="points"):
        Scene(voxels=np.zeros((1, 4, 4, 4), np.float32), points=np.zeros((4, 2)))


def dataset(store, augmentation, seed=3):
    training = split_store(store, (32, 32, 32), 0.1, 3).training
    return CropDataset(store, training, crop=(32, 32, 32), batch=2, seed=seed, augmentation=augmentation)


@dataclass
class Ramp:
    """A volume whose voxels say where they lie, in three channels; stands in for a stored one."""

    size: tuple[int, int, int]
    id: str = "v"
    patient: str = "p"
    content: str = "c"
    modality: str = "CT"
    contrast: None = None
    spacing: tuple[float, float, float] = (1.0, 0.8, 2.0)

    def read(self, start, size):
        axes = [np.arange(a, a + n, dtype=np.float32) for a, n in zip(start, size, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def read_foreground(self, start, size):
        return np.ones(size, dtype=bool)


def test_a_turned_training_crop_shows_what_really_lies_around_it_and_stays_in_its_region():
    """Turning a ramp gives a ramp: wherever something was made up at a border, it would have a kink."""
    region = Region(volume="v", start=(0, 10, 0), size=(120, 80, 90))
    turned = Augmentation(flip=0, noise=0, rotation_degrees=25, share=1.0)
    made = CropDataset({"v": Ramp((120, 100, 90))}, [region], crop=(24, 24, 16), batch=1, seed=3, augmentation=turned)
    inside = 0
    for draw in range(12):
        _, crop = made[draw]
        index = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 24, 16)), [1.0], indexing="ij"), -1).reshape(-1, 4)
        index[:, :3] -= (11.5, 11.5, 7.5)
        values = crop.voxels.reshape(3, -1).T
        assert values[:, 1].min() > 10 - 1e-3 and values[:, 1].max() < 89 + 1e-3
        if crop.foreground.all():
            inside += 1
            fit = np.linalg.lstsq(index, values, rcond=None)[0]
            assert np.abs(index @ fit - values).max() < 2e-3
            assert np.allclose(fit[3], np.add(crop.start, (11.5, 11.5, 7.5)), atol=1e-3)
            turn_in_mm = fit[:3].T * np.array(Ramp.spacing)[:, None] / Ramp.spacing
            assert np.allclose(turn_in_mm @ turn_in_mm.T, np.eye(3), atol=1e-3)
    assert inside >= 4


def test_strong_augmentation_does_not_depend_on_torchs_threads(mixed_store):
    made = dataset(mixed_store, replace(STRONG, share=1.0))
    before = torch.get_num_threads()
    try:
        crops = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            crops.append([made[draw][1].voxels for draw in range(4)])
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*crops, strict=True))
