"""Laws I20 and I21, and the borders: one set of weights for every size, samples apart, nothing outside the crop."""

import io

import pytest
import torch

from laws.tiny import PRECISIONS, SETTINGS, crop_of, grid_of, ragged, tiny_encoder, voxels_of
from wavespark.models.waveformer import WaveFormer
from wavespark.shapes import ceil_div


def check_shapes(encoder, size, batch=1):
    crop = crop_of(*size, batch=batch, dtype=torch.float32)
    grid = ceil_div(size, encoder.cell)
    with torch.no_grad():
        bare = encoder(crop)
        masked = encoder(crop, ragged(*grid, batch=batch)) if grid != (1, 1, 1) else []
    for level, stride, channels in zip(bare, encoder.strides, encoder.channels, strict=True):
        assert tuple(level.shape) == (batch, channels, *ceil_div(size, (stride,) * 3))
        assert torch.isfinite(level).all()
    for level, dense in zip(masked, bare, strict=False):
        assert level.to_dense().shape == dense.shape


@pytest.mark.parametrize(
    "size", [(96, 96, 96), (64, 64, 32), (61, 47, 33), (60, 60, 60), (17, 100, 9), (1, 1, 1), (5, 16, 70)]
)
def test_weights_of_one_size_run_at_every_other(size):
    torch.manual_seed(0)
    trained = WaveFormer(SETTINGS, {"any": 1})
    loss = sum(level.square().mean() for level in trained(crop_of(64, 64, 64, batch=1, dtype=torch.float32)))
    loss.backward()
    torch.optim.SGD(trained.parameters(), 0.1).step()
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    encoder = WaveFormer(SETTINGS, {"any": 1}).eval()
    encoder.load_state_dict(torch.load(file, weights_only=True))
    check_shapes(encoder, size)


def test_weights_run_at_128():
    check_shapes(tiny_encoder(torch.float32), (128, 128, 128))


def test_no_weight_knows_the_size_of_a_crop():
    shapes = {name: tuple(p.shape) for name, p in tiny_encoder().state_dict().items()}
    encoder = tiny_encoder()
    encoder(crop_of(40, 24, 19))
    assert {name: tuple(p.shape) for name, p in encoder.state_dict().items()} == shapes


@pytest.mark.parametrize("size", [(19, 24, 13), (9, 8, 17)])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_tokens_without_a_voxel_of_the_crop_are_zero_at_every_level(size, dtype):
    encoder, crop, visible = tiny_encoder(dtype), crop_of(*size, dtype=dtype), ragged(*grid_of(size))
    for level, stride in zip(encoder(crop, visible), encoder.strides, strict=True):
        inside = ceil_div(size, (stride,) * 3)
        axes = [
            level.cells[:, 1 + a, None] * level.block[a] + torch.arange(level.block[a]) < inside[a] for a in range(3)
        ]
        there = axes[0][:, :, None, None] & axes[1][:, None, :, None] & axes[2][:, None, None, :]
        assert (level.features[~there] == 0).all()
        assert (level.features[there] != 0).all()
        assert not there.all() or level.block == (1, 1, 1)
        assert tuple(level.to_dense().shape[2:]) == inside


def test_a_voxel_beyond_the_crop_counts_as_little_as_if_it_did_not_exist():
    """A border of zeros inside the last token changes nothing; a border that adds tokens is another crop."""
    encoder, crop = tiny_encoder(), crop_of(19, 24, 13)
    wider = torch.nn.functional.pad(crop, (0, 1, 0, 0, 0, 1))
    for a, b in zip(encoder(crop), encoder(wider), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_sample_does_not_depend_on_the_others_of_its_batch(dtype):
    encoder, size = tiny_encoder(dtype), (19, 24, 13)
    crop, visible = crop_of(*size, batch=3, dtype=dtype), ragged(*grid_of(size), batch=3)
    together = encoder(crop, visible)
    for i in range(3):
        others = crop.clone()
        others[[n for n in range(3) if n != i]] = torch.nan
        for level, alone, beside_nan in zip(
            together, encoder(crop[i : i + 1], visible[i : i + 1]), encoder(others, visible), strict=True
        ):
            mine = level.cells[:, 0] == i
            assert (level.features[mine] - alone.features).abs().max() <= min(
                1e-6, PRECISIONS[dtype]
            ) * level.features.abs().max()
            assert torch.equal(level.features[mine], beside_nan.features[mine])


def test_hidden_cells_of_one_sample_may_be_visible_in_another():
    encoder, crop = tiny_encoder(), crop_of(16, 16, 16)
    visible = ragged(2, 2, 2)
    visible[1] = ~visible[0]
    shown = voxels_of(visible, (16, 16, 16))
    for a, b in zip(encoder(crop, visible), encoder(torch.where(shown, crop, torch.nan), visible), strict=True):
        assert torch.equal(a.features, b.features)
