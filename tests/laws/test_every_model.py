"""Laws I1, I2, I7, I18, I20, I21, I25, I28 for every model of the catalogue and every option that changes what is computed."""

import pytest
import torch

from laws.kinds import NAMES, encoder_of, oracle, sizes_of
from laws.tiny import PRECISIONS, crop_of, grid_of, ragged, voxels_of
from wavespark.models import describe, from_description

BAD = {"noise": 100.0, "infinity": torch.inf, "minus infinity": -torch.inf, "NaN": torch.nan}


def cut(encoder, size, dtype=torch.float64, batch=2):
    cell = encoder.cell[0]
    visible = ragged(*grid_of(size, cell), batch=batch)
    return crop_of(*size, batch=batch, dtype=dtype), visible, voxels_of(visible, size, cell)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_hidden_voxels_change_no_bit_of_a_feature_nor_of_a_gradient_of_a_weight(name, dtype, training):
    for size in sizes_of(encoder_of(name)):
        results = []
        for content in (None, *(BAD.values() if not training and dtype == torch.float64 else (torch.nan,))):
            encoder = encoder_of(name, dtype).train(training)
            crop, visible, shown = cut(encoder, size, dtype)
            levels = encoder(crop if content is None else crop.where(shown, content), visible)
            loss = sum(level.features.square().mean() for level in levels)
            gradients = torch.autograd.grad(loss, list(encoder.parameters()))
            results.append([*(level.features for level in levels), *gradients])
        for found in results[1:]:
            assert all(torch.isfinite(b).all() and torch.equal(a, b) for a, b in zip(results[0], found, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_no_feature_has_a_gradient_with_respect_to_a_hidden_voxel(name):
    encoder = encoder_of(name)
    crop, visible, shown = cut(encoder, sizes_of(encoder)[1])
    crop.requires_grad_()
    reached = torch.zeros_like(crop)
    for level in encoder(crop, visible):
        (gradient,) = torch.autograd.grad(level.features.pow(3).sum(), crop, retain_graph=True)
        assert (gradient[~shown] == 0).all()
        reached += gradient.abs()
    assert (reached[shown] != 0).float().mean() > 0.99


def levels_and_gradients(encoder, levels, crop):
    weights = [torch.linspace(-1, 1, level.numel(), dtype=level.dtype).view(level.shape) for level in levels]
    loss = sum((w * level).mean() for w, level in zip(weights, levels, strict=True))
    return [*levels, *torch.autograd.grad(loss, [crop, *encoder.parameters()])]


@pytest.mark.parametrize("hiding", [False, True], ids=["everything visible", "some hidden"])
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_it_equals_an_independent_dense_network_and_so_do_all_gradients(name, dtype, hiding):
    """In single precision: as near to the truth as the dense network of that precision, since norms over few tokens amplify rounding."""
    encoder, exact = encoder_of(name, dtype), encoder_of(name)
    for size in sizes_of(encoder):
        crop, visible, _ = cut(encoder, size, dtype)
        mask = visible if hiding else None
        crop.requires_grad_()
        found = [level.to_dense() for level in encoder(crop, visible)] if hiding else encoder(crop)
        found = levels_and_gradients(encoder, found, crop)
        dense = levels_and_gradients(encoder, oracle(encoder, crop, mask), crop)
        truth = dense
        if dtype == torch.float32:
            wide = crop.detach().double().requires_grad_()
            truth = levels_and_gradients(exact, oracle(exact, wide, mask), wide)
        for a, b, t in zip(found, dense, truth, strict=True):
            assert a.shape == b.shape
            assert (a - t).abs().max() <= PRECISIONS[dtype] * max(1, t.abs().max()) + 4 * (b - t).abs().max()
            assert (b - t).abs().max() <= 1e-3 * max(1, t.abs().max())


@pytest.mark.parametrize("name", NAMES)
def test_no_mask_a_mask_that_hides_nothing_and_the_described_encoder_are_the_same_to_the_bit(name):
    encoder = encoder_of(name, torch.float32)
    again = from_description(describe(encoder), device="meta")
    again.load_state_dict(encoder.state_dict(), assign=True)
    for size in sizes_of(encoder):
        crop = crop_of(*size, dtype=torch.float32)
        everything = torch.ones(2, *grid_of(size, encoder.cell[0]), dtype=torch.bool)
        masked = [level.to_dense() for level in encoder(crop, everything)]
        for a, b, c in zip(encoder(crop), masked, again.eval()(crop), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(a, c)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_and_every_parity_of_the_input_has_a_gradient(name):
    encoder = encoder_of(name)
    crop, visible, _ = cut(encoder, sizes_of(encoder)[0])
    sum(level.features.pow(3).sum() for level in encoder(crop, visible)).backward()
    for key, p in encoder.named_parameters():
        assert p.grad is not None, key
        # A bias in front of a norm over tokens shifts what the norm takes away again.
        assert (p.grad != 0).any() or key.endswith("conv.bias"), key
    if hasattr(encoder, "stems"):
        assert (encoder.stems["any"].weight.grad.abs().amax(0) > 0).all()
    else:
        assert (encoder.stem.convs[0].conv.weight.grad != 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_does_not_depend_on_the_others_of_its_batch(name):
    encoder = encoder_of(name)
    crop, visible, _ = cut(encoder, sizes_of(encoder)[1])
    together = encoder(crop, visible)
    others = torch.stack((crop[0], torch.full_like(crop[1], torch.nan)))
    for level, alone, beside in zip(together, encoder(crop[:1], visible[:1]), encoder(others, visible), strict=True):
        mine = level.cells[:, 0] == 0
        assert (level.features[mine] - alone.features).abs().max() <= 1e-10 * level.features.abs().max()
        assert torch.equal(level.features[mine], beside.features[mine])


@pytest.mark.parametrize("name", NAMES)
def test_weights_run_at_every_size_and_no_weight_knows_one(name):
    encoder = encoder_of(name, torch.float32)
    c = encoder.cell[0]
    before = {key: tuple(p.shape) for key, p in encoder.state_dict().items()}
    for size in ((1, 1, 1), (c, c, c // 2), (c + 1, 3, 2 * c - 3)):
        with torch.no_grad():
            levels = encoder(crop_of(*size, batch=1, dtype=torch.float32))
        for level, stride, channels in zip(levels, encoder.strides, encoder.channels, strict=True):
            assert tuple(level.shape) == (1, channels, *(-(-s // stride) for s in size))
            assert torch.isfinite(level).all()
    assert {key: tuple(p.shape) for key, p in encoder.state_dict().items()} == before


@pytest.mark.parametrize("name", NAMES)
def test_two_encoders_and_a_slow_copy_interleaved_are_encoders_apart(name):
    def passes(turns):
        models = {key: encoder_of(name, seed=seed).train() for key, seed in (("a", 0), ("b", 1), ("slow", 0))}
        found = []
        for key, k in turns:
            crop, visible, _ = cut(models[key], sizes_of(models[key])[1])
            found.append((key, k, models[key](crop + k, visible)[-1].features.detach()))
        return {(key, k): f for key, k, f in found}

    mixed = passes([("a", 0), ("b", 0), ("slow", 0), ("b", 1), ("a", 1), ("slow", 1)])
    apart = {}
    for key in ("a", "b", "slow"):
        apart |= passes([(key, 0), (key, 1)])
    assert mixed.keys() == apart.keys()
    assert all(torch.equal(mixed[k], apart[k]) for k in mixed)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", NAMES)
def test_under_autocast_it_is_finite_and_close_to_full_precision(name, half):
    encoder = encoder_of(name, torch.float32)
    crop, visible, _ = cut(encoder, sizes_of(encoder)[0], torch.float32)
    exact = encoder(crop, visible)
    with torch.autocast("cpu", half):
        found = encoder(crop, visible)
    assert all(torch.isfinite(level.features).all() for level in found)
    # Coarser levels may have two tokens a sample, over which an instance norm turns rounding into signs.
    a, b = found[0].features.float(), exact[0].features
    assert (a - b).square().mean() <= 0.02 * b.square().mean()


@pytest.mark.parametrize("name", NAMES)
def test_computing_blocks_again_in_the_backward_pass_changes_no_bit(name):
    results = []
    for again in (False, True):
        encoder = encoder_of(name, gradient_checkpointing=again, drop_path=0.4).train()
        crop, visible, _ = cut(encoder, sizes_of(encoder)[1])
        levels = encoder(crop, visible, generator=torch.Generator().manual_seed(3))
        loss = sum(level.features.square().sum() for level in levels)
        results.append([loss, *torch.autograd.grad(loss, list(encoder.parameters()))])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


@pytest.fixture
def memory_is_nan():
    """Memory that is not initialised holds NaN (a documented service of PyTorch's deterministic mode)."""
    torch.use_deterministic_algorithms(True)
    assert torch.empty(2).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", NAMES)
def test_every_fresh_weight_is_drawn_or_set(name, memory_is_nan):
    fresh = from_description(describe(encoder_of(name)))
    for key, p in [*fresh.named_parameters(), *fresh.named_buffers()]:
        assert torch.isfinite(p).all(), key
    drawn = [p for key, p in fresh.named_parameters() if key.endswith("weight") and "norm" not in key]
    assert all(p.std() > 1e-3 for p in drawn)


@pytest.mark.parametrize("name", NAMES)
def test_an_idle_stem_joins_the_graph_with_an_exact_zero(name):
    encoder = encoder_of(name, stems={"MR": 1, "CT": 3}).train()
    size = sizes_of(encoder)[0]
    visible = ragged(*grid_of(size, encoder.cell[0]))
    levels = encoder(crop_of(*size, channels=3), visible, modality="CT")
    sum(level.features.pow(3).sum() for level in levels).backward()
    for key, p in encoder.named_parameters():
        assert p.grad is not None, key
        if key.startswith("stems.MR."):
            assert (p.grad == 0).all(), key
    assert any((p.grad != 0).any() for key, p in encoder.named_parameters() if key.startswith("stems.CT."))
