"""Laws I5, I6 and I7 for the encoder as a whole: it equals a dense network written without cells."""

import pytest
import torch

from laws.tiny import PRECISIONS, SETTINGS, crop_of, grid_of, ragged, tiny_encoder
from oracles.dense_waveformer import dense_levels

SIZES = [(24, 24, 24), (16, 24, 8), (19, 24, 13)]


def oracle(encoder, crop, visible=None):
    return dense_levels(dict(encoder.named_parameters()), SETTINGS.depths, SETTINGS.heads, crop, visible)


def compare(encoder, crop, visible, tolerance):
    """Levels, and the gradients of every weight and every voxel, against the oracle."""
    crop = crop.requires_grad_()
    parameters = [crop, *encoder.parameters()]
    found = encoder(crop) if visible is None else [level.to_dense() for level in encoder(crop, visible)]
    expected = oracle(encoder, crop, visible)
    weights = [
        torch.randn(level.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(level)
        for level in expected
    ]
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= tolerance
    gradients = [
        torch.autograd.grad(sum((f * w).mean() for f, w in zip(levels, weights, strict=True)), parameters)
        for levels in (found, expected)
    ]
    names = ["crop", *[name for name, _ in encoder.named_parameters()]]
    for name, a, b in zip(names, *gradients, strict=True):
        assert (a - b).abs().max() <= tolerance, name
        assert b.abs().max() > 0, name


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_with_everything_visible_it_equals_an_independent_dense_network_and_so_do_all_gradients(size, dtype):
    compare(tiny_encoder(dtype), crop_of(*size, dtype=dtype), None, PRECISIONS[dtype])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_with_hidden_cells_it_equals_the_dense_network_times_the_mask_and_so_do_all_gradients(size, dtype):
    compare(tiny_encoder(dtype), crop_of(*size, dtype=dtype), ragged(*grid_of(size)), PRECISIONS[dtype])


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_fresh_weights_equal_the_dense_network_too(dtype):
    torch.manual_seed(0)
    encoder = type(tiny_encoder())(SETTINGS, {"any": 1}).to(dtype)
    compare(encoder, crop_of(16, 16, 16, dtype=dtype), ragged(2, 2, 2), PRECISIONS[dtype])


@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_no_mask_and_a_mask_that_hides_nothing_are_the_same_to_the_bit(dtype, size):
    encoder, crop = tiny_encoder(dtype), crop_of(*size, dtype=dtype)
    for bare, masked in zip(encoder(crop), encoder(crop, torch.ones(2, *grid_of(size), dtype=torch.bool)), strict=True):
        assert torch.equal(bare, masked.to_dense())


def test_a_stem_of_several_channels_equals_the_dense_network():
    encoder = tiny_encoder(stems={"MR": 1, "CT": 3})
    crop, visible = crop_of(16, 16, 16, channels=3), ragged(2, 2, 2)
    expected = dense_levels(dict(encoder.named_parameters()), SETTINGS.depths, SETTINGS.heads, crop, visible, "CT")
    for a, b in zip(encoder(crop, visible, modality="CT"), expected, strict=True):
        assert (a.to_dense() - b).abs().max() <= 1e-10


def test_weights_may_be_frozen_and_only_the_voxels_ask_for_gradients():
    encoder, crop = tiny_encoder().requires_grad_(False), crop_of(16, 16, 16).requires_grad_()
    visible = ragged(2, 2, 2)
    (found,) = torch.autograd.grad(encoder(crop, visible)[-1].features.square().sum(), crop)
    (expected,) = torch.autograd.grad(oracle(encoder, crop, visible)[-1].square().sum(), crop)
    assert (found - expected).abs().max() <= 1e-10
