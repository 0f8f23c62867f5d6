"""Laws I1 and I2: what is hidden cannot be seen, whatever it holds."""

import pytest
import torch

from laws.tiny import PRECISIONS, crop_of, grid_of, ragged, tiny_encoder, voxels_of

CONTENTS = {
    "ten times as loud noise": lambda like: (
        10 * torch.randn(like.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).to(like)
    ),
    "infinity": lambda like: torch.full_like(like, torch.inf),
    "minus infinity": lambda like: torch.full_like(like, -torch.inf),
    "NaN": lambda like: torch.full_like(like, torch.nan),
}
SIZES = [(24, 24, 24), (19, 24, 13)]


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_hidden_voxels_change_no_bit_of_a_visible_feature_nor_of_a_gradient_of_a_weight(dtype, training, size, content):
    encoder, crop, visible = tiny_encoder(dtype).train(training), crop_of(*size, dtype=dtype), ragged(*grid_of(size))
    poisoned = torch.where(voxels_of(visible, size), crop, CONTENTS[content](crop))
    assert not torch.equal(poisoned, crop)
    before, after = encoder(crop, visible), encoder(poisoned, visible)
    for a, b in zip(before, after, strict=True):
        assert torch.isfinite(b.features).all()
        assert torch.equal(a.features, b.features)
    weights = list(encoder.parameters())
    for a, b in zip(
        *(
            torch.autograd.grad(sum(level.features.square().mean() for level in levels), weights)
            for levels in (before, after)
        ),
        strict=True,
    ):
        assert torch.equal(a, b)


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("size", SIZES)
def test_no_visible_feature_has_a_gradient_with_respect_to_a_hidden_voxel(size, dtype, content):
    encoder, crop, visible = tiny_encoder(dtype), crop_of(*size, dtype=dtype), ragged(*grid_of(size))
    shown = voxels_of(visible, size)
    crop = torch.where(shown, crop, CONTENTS[content](crop)).requires_grad_()
    for level in encoder(crop, visible):
        (gradient,) = torch.autograd.grad(level.features.square().sum(), crop, retain_graph=True)
        assert (gradient[~shown] == 0).all()
        assert (gradient[shown] != 0).all()


@pytest.mark.parametrize("dtype", PRECISIONS)
def test_hidden_positions_of_every_level_are_exactly_the_fill(dtype):
    encoder, visible = tiny_encoder(dtype), ragged(3, 3, 3)
    for level in encoder(crop_of(24, 24, 24, dtype=dtype), visible):
        shown = voxels_of(visible, level.to_dense().shape[2:], level.block[0]).expand(-1, level.channels, -1, -1, -1)
        assert (level.to_dense()[~shown] == 0).all()
        assert (level.to_dense(fill=7.0)[~shown] == 7).all()
        assert (level.to_dense()[shown] != 0).all()


def test_visible_cells_that_touch_do_see_each_other():
    """The counterpart: without it, a network that computes nothing would pass."""
    encoder, crop, visible = (
        tiny_encoder(),
        crop_of(24, 24, 24, batch=1).requires_grad_(),
        torch.zeros(1, 3, 3, 3, dtype=torch.bool),
    )
    visible[0, 1, 1, 1] = visible[0, 2, 2, 2] = visible[0, 0, 2, 1] = True
    shown = voxels_of(visible, (24, 24, 24))
    for level in encoder(crop, visible):
        (gradient,) = torch.autograd.grad(level.features[1].square().sum(), crop, retain_graph=True)
        assert (gradient[shown] != 0).all()
