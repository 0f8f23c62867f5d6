"""Voxel probes: maps are read as they are interpolated, the fit is scikit-learn's, and what is linear is found."""

import numpy as np
import torch

from downstream.labelled import Small, fresh_encoder
from wavespark.downstream.items import with_maps
from wavespark.downstream.voxel_probe import (
    VoxelProbe,
    draw_voxels,
    encoder_maps,
    fit_voxel_probe,
    intensity_maps,
    read_maps,
)


def maps_of(size=(16, 24, 8), strides=(1, 2, 8), seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.standard_normal((3, *(-(-n // s) for n in size))).astype(np.float32), s) for s in strides]


def test_maps_read_at_voxels_are_the_interpolated_maps():
    maps, size = maps_of(), (16, 24, 8)
    voxels = np.argwhere(np.ones(size))
    rows = read_maps(maps, voxels)
    whole = [
        torch.nn.functional.interpolate(torch.from_numpy(m)[None], size=size, mode="trilinear", align_corners=False)[0]
        for m, _ in maps
    ]
    assert np.abs(rows - torch.cat(whole).flatten(1).T.numpy()).max() < 1e-5


def test_a_prediction_is_the_linear_model_of_the_features_of_each_voxel():
    maps, size = maps_of(), (16, 24, 8)
    rng = np.random.default_rng(1)
    probe = VoxelProbe(weight=rng.standard_normal((4, 9)), bias=rng.standard_normal(4), penalty=0.1)
    foreground = np.ones(size, bool)
    foreground[0] = False
    rows = read_maps(maps, np.argwhere(np.ones(size)))
    theirs = (rows @ probe.weight.T + probe.bias).argmax(1).reshape(size)
    ours = probe.predict(maps, foreground)
    assert (ours[1:] == theirs[1:]).mean() > 0.999
    assert not ours[0].any()


def test_maps_of_an_encoder_are_its_dense_levels_and_the_same_shape_in_pieces(small: Small):
    encoder, volume = fresh_encoder().eval(), small.store[0]
    for tile in (128, 16):
        maps = encoder_maps(encoder, volume, tile)
        assert [(m.shape[0], s) for m, s in maps] == list(zip(encoder.channels, encoder.strides, strict=True))
        assert all(m.shape[1:] == tuple(-(-n // s) for n in volume.size) for m, s in maps)
        assert all(np.isfinite(m).all() and m.any() for m, _ in maps)


def test_the_control_holds_the_intensity_and_eight_channels_a_scale(small: Small):
    ((maps, stride),) = intensity_maps(small.store[0])
    voxels = small.store[0].read()
    assert (maps.shape, stride) == ((1 + 4 * 8, *voxels.shape[1:]), 1)
    assert np.array_equal(maps[0], voxels[0])


def test_voxels_are_drawn_evenly_from_classes_and_from_the_foreground(small: Small):
    (item, *_) = with_maps(small.table, small.store, "label")
    voxels, labels = draw_voxels(item, 3, 50, seed=0)
    foreground = item.volume.read_foreground()
    assert foreground[tuple(voxels.T)].all()
    assert np.array_equal(item.read_map()[tuple(voxels.T)], labels)
    there = [min(50, int((item.read_map()[foreground] == k).sum())) for k in range(3)]
    assert np.bincount(labels, minlength=3).tolist() == there
    assert np.array_equal(draw_voxels(item, 3, 50, seed=0)[0], voxels)


def test_tissue_that_is_a_matter_of_intensity_is_found_on_another_person(small: Small):
    items = with_maps(small.table, small.store, "label")
    for count in (1, 2):
        probe = fit_voxel_probe(items[:count], intensity_maps, 3)
        other = items[-1]
        predicted = probe.predict(intensity_maps(other.volume), other.volume.read_foreground())
        truth = other.read_map()
        dice = [
            2 * ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum()) for k in (1, 2)
        ]
        assert min(dice) > 0.7, (count, dice)


def test_the_fit_has_converged():
    """Scaling or mixing the features changes nothing: they are whitened before the fit."""
    from wavespark.downstream import voxel_probe

    rng = np.random.default_rng(2)
    y = np.arange(600) % 3
    x = rng.standard_normal((600, 5)) + y[:, None] * np.array([1.0, 0.5, 0, 0, 0])
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    mixed = x @ turn @ np.diag([1, 0.1, 3, 1, 1]) @ turn * np.array([1e-3, 1, 1e3, 1, 1])
    chances = []
    for rows in (x, mixed):
        mean, whitening = voxel_probe._whitening(rows)
        z = (rows - mean) @ whitening
        assert np.allclose(np.cov(z.T), np.eye(z.shape[1]), atol=1e-6)
        weight, bias = voxel_probe._fit(z, y, 1e-2, 3)
        chances.append(z @ weight.T + bias)
    assert np.abs(chances[0] - chances[1]).max() < 0.05
