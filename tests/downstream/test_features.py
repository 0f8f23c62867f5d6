"""Frozen features: weighted by the head, the same in pieces as in one, and the controls that need no network."""

import numpy as np
import pytest
import torch

from downstream.labelled import Small, fresh_encoder
from wavespark.downstream.features import (
    POOLS,
    check_pools,
    intensity_features,
    log_volume,
    pool_tokens,
    store_features,
    volume_features,
    volume_tokens,
)
from wavespark.errors import SettingsError


def test_tokens_are_those_of_the_dense_pass_where_there_is_foreground(small: Small) -> None:
    encoder, volume = fresh_encoder().eval(), small.store[0]
    foreground = volume.read_foreground()
    size = [16 * -(-n // 16) for n in volume.size]
    voxels = np.zeros((1, 1, *size), np.float32)
    voxels[0, 0, : volume.size[0], : volume.size[1], : volume.size[2]] = volume.read()[0]
    for stride, (tokens, centres, share) in zip(encoder.strides, volume_tokens(encoder, volume), strict=True):
        assert len(tokens) == len(centres) == len(share) > 0
        for centre, part in list(zip(centres, share, strict=True))[:: max(1, len(share) // 40)]:
            box = tuple(slice(int(c - stride / 2), int(c + stride / 2)) for c in centre)
            assert part == pytest.approx(foreground[box].sum() / stride**3, abs=1e-6)
        total = share.sum() * stride**3
        assert total == pytest.approx(foreground.sum(), rel=1e-6)


def test_features_of_a_volume_whose_cells_are_all_head_are_the_mean_of_the_dense_levels(small: Small) -> None:
    encoder = fresh_encoder().eval()

    class Full:
        size, spacing, modality, channels = (16, 32, 16), (1.0, 1.0, 1.0), "MR", 1

        def read(self) -> np.ndarray:
            return np.random.default_rng(0).standard_normal((1, *self.size)).astype(np.float32)

        def read_foreground(self) -> np.ndarray:
            return np.ones(self.size, bool)

    volume = Full()
    levels = encoder(torch.from_numpy(volume.read())[None], modality="MR")
    for ours, level in zip(volume_features(encoder, volume), levels, strict=True):  # type: ignore[arg-type]
        flat = level[0].detach().double().flatten(1)
        theirs = torch.cat((flat.mean(1), flat.std(1, unbiased=False))).numpy()
        assert np.abs(ours - theirs).max() < 1e-5


def test_a_volume_in_pieces_has_the_tokens_of_the_whole_one_at_the_same_places(small: Small) -> None:
    encoder, volume = fresh_encoder().eval(), small.store[0]
    for whole, pieces in zip(volume_tokens(encoder, volume), volume_tokens(encoder, volume, tile=16), strict=True):
        order = [np.lexsort(part[1].T) for part in (whole, pieces)]
        assert np.array_equal(whole[1][order[0]], pieces[1][order[1]])
        assert np.array_equal(whole[2][order[0]], pieces[2][order[1]])


def test_pools_are_what_their_names_say() -> None:
    rng = np.random.default_rng(0)
    tokens, share = rng.standard_normal((50, 3)).astype(np.float32), np.ones(50, np.float32)
    share[:10] = 0.25
    centres = rng.uniform(0, 64, (50, 3)).astype(np.float32)
    pooled = pool_tokens(tokens, centres, share, POOLS)
    assert np.allclose(pooled["mean"], np.average(tokens, axis=0, weights=share))
    spread = np.average((tokens - pooled["mean"]) ** 2, axis=0, weights=share)
    assert np.allclose(pooled["deviation"], spread**0.5)
    assert np.allclose(pooled["max"], tokens[10:].max(0))
    assert np.allclose(pooled["quantiles"].reshape(5, 3)[2], np.median(tokens[10:], 0))
    middle = (centres.min(0) + centres.max(0)) / 2
    corner = (centres > middle).all(1)
    expected = np.average(tokens[corner], axis=0, weights=share[corner]) - pooled["mean"]
    assert np.allclose(pooled["regions"].reshape(8, 3)[7], expected)
    assert "volume" not in pooled


def test_an_empty_octant_differs_from_the_whole_by_nothing() -> None:
    tokens = np.array([[1.0], [3.0]], np.float32)
    centres = np.array([[0, 0, 0], [8, 8, 8]], np.float32)
    regions = pool_tokens(tokens, centres, np.ones(2, np.float32), ("regions",))["regions"]
    assert regions.tolist() == [-1, 0, 0, 0, 0, 0, 0, 1]


def test_each_pool_adds_its_columns(small: Small) -> None:
    encoder, volumes = fresh_encoder(), [small.store[k] for k in range(2)]
    levels = store_features(encoder, volumes, pools=POOLS)
    assert [m.shape for m in levels] == [(2, c * (1 + 1 + 5 + 1 + 8) + 1) for c in encoder.channels]
    assert levels[0][:, -1].tolist() == [log_volume(v) for v in volumes]
    with pytest.raises(SettingsError, match="some of mean"):
        check_pools(("median",))


def test_the_control_without_a_network_is_a_histogram_and_the_volume(small: Small) -> None:
    volumes = [small.store[k] for k in range(3)]
    rows = intensity_features(volumes)
    assert rows.shape == (3, 65)
    assert np.allclose(rows[:, :64].sum(1), 1)
    voxels = volumes[1].read_foreground().sum() * np.prod(volumes[1].spacing) / 1000
    assert rows[1, 64] == pytest.approx(np.log(voxels))
