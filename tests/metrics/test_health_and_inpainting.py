"""The baseline that needs no network, and the sign of collapse."""

import pytest
import torch

from wavespark.metrics import effective_rank, harmonic, inpaint

FILLS = pytest.mark.parametrize("fill", [inpaint, harmonic])


def holes(*size, batch=2, cell=4, share=0.5, seed=0):
    """Hidden cells of 4 voxels; the outermost ones stay visible."""
    grid = [-(-s // cell) for s in size]
    visible = torch.rand(batch, *grid, generator=torch.Generator().manual_seed(seed)) > share
    visible[:, [0, -1]] = visible[:, :, [0, -1]] = visible[:, :, :, [0, -1]] = True
    for axis in range(3):
        visible = visible.repeat_interleave(cell, axis + 1)
    return visible[:, : size[0], : size[1], : size[2]]


@FILLS
@pytest.mark.parametrize("size", [(16, 16, 16), (13, 9, 17), (12, 1, 12)])
def test_visible_voxels_stay_and_hidden_ones_are_never_read(fill, size):
    generator = torch.Generator().manual_seed(1)
    visible = holes(*size) & (torch.rand(2, *size, generator=generator) < 0.7)
    crop = torch.randn(2, 3, *size, generator=generator)
    filled = fill(crop, visible)
    assert filled.shape == crop.shape and torch.isfinite(filled).all()
    known = visible[:, None].expand_as(crop)
    assert torch.equal(filled[known], crop[known])
    assert torch.equal(fill(crop.where(known, torch.nan), visible), filled)


@FILLS
def test_a_constant_is_filled_exactly(fill):
    visible = holes(13, 16, 18)
    filled = fill(torch.full((2, 2, 13, 16, 18), -2.75), visible)
    assert (filled + 2.75).abs().max() < 1e-5


@FILLS
def test_a_linear_ramp_is_filled_closely(fill):
    d, h, w = torch.meshgrid(*(torch.arange(24.0),) * 3, indexing="ij")
    ramp = (0.5 * d - h + 2 * w)[None, None]
    visible = holes(24, 24, 24, batch=1, share=0.5)
    error = (fill(ramp, visible) - ramp)[~visible[:, None]]
    assert len(error) > 200
    assert error.square().mean() < (2e-3 if fill is inpaint else 1e-6) * ramp.var()


def test_harmonic_filling_solves_laplaces_equation_inside_the_holes():
    visible = holes(16, 16, 16, batch=1)
    filled = harmonic(torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0)), visible, sweeps=200)[
        0, 0
    ]
    inner = filled[1:-1, 1:-1, 1:-1]
    mean = sum(filled.roll(s, a)[1:-1, 1:-1, 1:-1] for a in range(3) for s in (-1, 1)) / 6
    assert (inner - mean)[~visible[0, 1:-1, 1:-1, 1:-1]].abs().max() < 1e-4


@FILLS
def test_samples_and_channels_are_filled_apart(fill):
    visible = holes(12, 12, 12)
    crop = torch.randn(2, 2, 12, 12, 12, generator=torch.Generator().manual_seed(4))
    filled = fill(crop, visible)
    for b in range(2):
        for c in range(2):
            assert torch.equal(fill(crop[b : b + 1, c : c + 1], visible[b : b + 1])[0, 0], filled[b, c])


def test_the_effective_rank_counts_directions():
    g = torch.Generator().manual_seed(0)
    isotropic = torch.randn(20_000, 16, generator=g)
    assert effective_rank(isotropic) == pytest.approx(16, rel=0.01)
    assert effective_rank(isotropic + 100) == pytest.approx(16, rel=0.01)
    line = torch.randn(500, 1, generator=g) * torch.randn(1, 16, generator=g)
    assert effective_rank(line + 3) == pytest.approx(1, abs=1e-3)
    plane = torch.linalg.qr(torch.randn(16, 16, generator=g))[0][:4]
    assert effective_rank(torch.randn(20_000, 4, generator=g) @ plane) == pytest.approx(4, rel=0.01)


def test_collapsed_features_have_rank_one():
    assert effective_rank(torch.full((50, 8), 0.37)) == pytest.approx(1, abs=1e-6)
    assert effective_rank(torch.zeros(50, 8)) == 1
