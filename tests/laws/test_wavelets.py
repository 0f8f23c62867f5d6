"""Laws I16 and I17: the wavelet is the orthonormal Haar, channel by channel, cell by cell."""

import numpy as np
import pytest
import torch

from laws.tiny import tiny_encoder
from wavespark.errors import ShapeError
from wavespark.models.blocks import WaveletBlock
from wavespark.sparse import (
    CellLayout,
    VisibleCells,
    join_blocks,
    split_blocks,
)
from wavespark.sparse.cells import wavelets
from wavespark.sparse.cells.wavelets import BANDS

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-12}


def cells_of(n: int = 3, b: int = 8, channels: int = 4, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(n, b, b, b, channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def as_volumes(x_NbbbC: torch.Tensor) -> torch.Tensor:
    return x_NbbbC.permute(0, 4, 1, 2, 3)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_every_band_equals_pywavelets(levels, dtype):
    pywt = pytest.importorskip("pywt")
    x = cells_of(dtype=dtype)
    approximation, details = wavelets.haar_dwt(x, levels)
    expected = pywt.wavedecn(as_volumes(x).numpy(), "haar", mode="zero", level=levels, axes=(2, 3, 4))
    assert np.abs(as_volumes(approximation).numpy() - expected[0]).max() <= TOLERANCE[dtype]
    assert len(details) == levels
    for ours, theirs in zip(details, expected[1:], strict=True):
        assert ours.shape[1] == 7
        for i, band in enumerate(BANDS[1:]):
            assert np.abs(as_volumes(ours[:, i]).numpy() - theirs[band]).max() <= TOLERANCE[dtype], band


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("levels", [1, 2, 3])
def test_every_band_and_its_gradient_equal_ptwt(levels, dtype):
    ptwt = pytest.importorskip("ptwt")
    x = cells_of(dtype=dtype).requires_grad_()
    generator = torch.Generator().manual_seed(1)
    approximation, details = wavelets.haar_dwt(x, levels)
    theirs, *their_details = ptwt.wavedec3(as_volumes(x), "haar", mode="zero", level=levels)
    pairs = [(as_volumes(approximation), theirs)]
    for ours, expected in zip(details, their_details, strict=True):
        pairs += [(as_volumes(ours[:, i]), expected[band]) for i, band in enumerate(BANDS[1:])]
    weights = [torch.randn(a.shape, generator=generator, dtype=torch.float64).to(dtype) for a, _ in pairs]
    for ours, expected in pairs:
        assert (ours - expected).abs().max() <= TOLERANCE[dtype]
    gradients = [
        torch.autograd.grad(sum((p[side] * w).sum() for p, w in zip(pairs, weights, strict=True)), x)[0]
        for side in (0, 1)
    ]
    assert (gradients[0] - gradients[1]).abs().max() <= TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_it_loses_nothing_and_keeps_the_energy(levels, dtype):
    x = cells_of(dtype=dtype)
    approximation, details = wavelets.haar_dwt(x, levels)
    assert (wavelets.haar_idwt(approximation, details) - x).abs().max() <= TOLERANCE[dtype]
    energy = approximation.square().sum() + sum(d.square().sum() for d in details)
    assert abs(energy / x.square().sum() - 1) <= 1e-6


@pytest.mark.parametrize("levels", [1, 3])
def test_permuting_channels_commutes_with_it(levels):
    x, order = cells_of(), torch.tensor([2, 0, 3, 1])
    approximation, details = wavelets.haar_dwt(x, levels)
    permuted, permuted_details = wavelets.haar_dwt(x[..., order], levels)
    assert torch.equal(permuted, approximation[..., order])
    for a, b in zip(permuted_details, details, strict=True):
        assert torch.equal(a, b[..., order])
    assert torch.equal(
        wavelets.haar_idwt(permuted, permuted_details), wavelets.haar_idwt(approximation, details)[..., order]
    )


def test_the_coefficients_of_a_cell_do_not_depend_on_other_cells():
    x = cells_of()
    others = x.clone()
    others[1:] = torch.nan
    approximation, details = wavelets.haar_dwt(x, 3)
    found, found_details = wavelets.haar_dwt(others, 3)
    assert torch.equal(found[0], approximation[0])
    assert all(torch.equal(a[0], b[0]) for a, b in zip(found_details, details, strict=True))
    assert torch.equal(wavelets.haar_idwt(found, found_details)[0], wavelets.haar_idwt(approximation, details)[0])


def test_cut_into_cells_it_is_the_wavelet_of_the_whole_volume():
    pywt = pytest.importorskip("pywt")
    volume = torch.randn(1, 2, 16, 24, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    cells = VisibleCells.from_dense(volume, torch.ones(1, 2, 3, 1, dtype=torch.bool), cell=8)
    low_pass = wavelets.haar_dwt(cells.features, 3)[0]
    assert low_pass.shape == (6, 1, 1, 1, 2)  # one token a cell
    expected = pywt.wavedecn(volume.numpy(), "haar", mode="zero", level=3, axes=(2, 3, 4))[0]
    assert np.abs(cells.with_features(low_pass).to_dense().numpy() - expected).max() <= 1e-12


@pytest.mark.parametrize("b", [1, 2, 4, 8])
def test_a_block_equals_wavelet_attention_on_the_low_pass_token_and_the_inverse_wavelet(b):
    """The block's shortcut through the mean of a cell, against the long way round with untouched details."""
    layout = CellLayout.of(torch.ones(2, 1, 2, 1, dtype=torch.bool), size=(8, 16, 8), cell=(8, 8, 8))
    levels = b.bit_length() - 1
    block: WaveletBlock = tiny_encoder().stages[1][0]
    x = VisibleCells(features=cells_of(4, b, 24), layout=layout)
    seen = []
    block.attention = torch.nn.Module()
    block.attention.forward = lambda tokens, h, rotation: (seen.append(tokens), tokens.flip(0).sin())[
        1
    ]  # any function of the low-pass tokens
    block.mlp = torch.nn.Module()
    block.mlp.forward = lambda h: h.with_features(0 * h.features)
    found = block(x, None, None).features
    low_pass, details = wavelets.haar_dwt(block.norm1(x.features), levels)
    tokens = low_pass.flatten(1) / 2 ** (1.5 * levels)
    assert (seen[0] - tokens).abs().max() <= 1e-12
    update = 2 ** (1.5 * levels) * tokens.flip(0).sin()
    expected = x.features + wavelets.haar_idwt(update.view_as(low_pass), details)
    assert (found - expected).abs().max() <= 1e-12


def test_splitting_and_joining_blocks_are_inverse_and_ordered_by_parity():
    x = cells_of(2, 4, 3)
    split = split_blocks(x)
    assert torch.equal(join_blocks(split), x)
    for i, (d, h, w) in enumerate(np.ndindex(2, 2, 2)):
        assert torch.equal(split[..., 3 * i : 3 * i + 3], x[:, d::2, h::2, w::2])


def test_a_cell_that_cannot_be_halved_so_often_is_refused():
    with pytest.raises(ShapeError, match=r"\(4, 4, 4\) tokens cannot be halved 3 time"):
        wavelets.haar_dwt(cells_of(1, 4), 3)
