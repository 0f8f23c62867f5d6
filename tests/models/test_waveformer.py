"""The WaveFormer as a module: fresh weights, stems, stochastic depth, refusals."""

import pytest
import torch

from laws.tiny import SETTINGS, crop_of, ragged, tiny_encoder
from wavespark.errors import ModelError, ShapeError
from wavespark.models import WaveFormer, WaveFormerSettings
from wavespark.models.blocks import kept_samples

MODALITIES = {"MR": 1, "CT": 3}


@pytest.fixture
def memory_is_nan():
    """Memory that is not initialised holds NaN (a documented service of PyTorch's deterministic mode)."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    assert torch.empty(2).isnan().all()
    yield
    torch.use_deterministic_algorithms(False)


def check_fresh_weights_are_all_drawn():
    for name, p in WaveFormer(SETTINGS, MODALITIES).named_parameters():
        assert torch.isfinite(p).all(), name
        if name.endswith("bias"):
            assert (p == 0).all(), name
        elif "norm" in name:
            assert (p == 1).all(), name
        elif "depthwise" in name:
            assert 0.6 < p.std() / (2 / 27) ** 0.5 < 1.4, name
        else:
            assert 0.01 < p.std() < 0.03, name


def test_every_fresh_weight_is_drawn_or_set(memory_is_nan):
    check_fresh_weights_are_all_drawn()


def check_an_idle_stem_has_an_exact_zero_gradient(modality):
    encoder = tiny_encoder(stems=MODALITIES).train()
    crop, visible = crop_of(16, 16, 16, channels=MODALITIES[modality]), ragged(2, 2, 2)
    sum(level.features.square().sum() for level in encoder(crop, visible, modality=modality)).backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        idle = name.startswith("stems.") and not name.startswith(f"stems.{modality}.")
        assert (p.grad == 0).all() if idle else (p.grad != 0).any(), name


@pytest.mark.parametrize("modality", MODALITIES)
def test_an_idle_stem_joins_the_graph_with_an_exact_zero(modality):
    check_an_idle_stem_has_an_exact_zero_gradient(modality)


def test_an_idle_stem_changes_no_bit_of_the_features():
    encoder, crop, visible = tiny_encoder(stems=MODALITIES), crop_of(16, 16, 16), ragged(2, 2, 2)
    quiet = encoder.eval()(crop, visible, modality="MR")
    joined = encoder.train()(crop, visible, modality="MR")
    assert all(torch.equal(a.features, b.features) for a, b in zip(quiet, joined, strict=True))


@pytest.mark.parametrize("everything", [True, False], ids=["all visible", "some hidden"])
def test_every_weight_is_used(everything):
    encoder = tiny_encoder()
    visible = torch.ones(2, 2, 2, 2, dtype=torch.bool) if everything else ragged(2, 2, 2)
    sum(level.features.square().sum() for level in encoder(crop_of(16, 16, 16), visible)).backward()
    for name, p in encoder.named_parameters():
        assert p.grad is not None, name
        assert (p.grad != 0).any(), name


def test_a_level_comes_from_its_own_stage_and_not_from_a_later_one():
    encoder, crop, visible = tiny_encoder(), crop_of(16, 16, 16), ragged(2, 2, 2)
    before = encoder(crop, visible)
    with torch.no_grad():
        for p in encoder.stages[2].parameters():
            p.add_(1)
    after = encoder(crop, visible)
    assert [torch.equal(a.features, b.features) for a, b in zip(before, after, strict=True)] == [True, True, False]


def dropping(rate):
    encoder = tiny_encoder()
    for stage in encoder.stages:
        for block in stage:
            block.drop_path = rate
    return encoder


def test_stochastic_depth_is_drawn_from_its_generator_and_leaves_evaluation_alone():
    encoder, crop, visible = dropping(0.5), crop_of(16, 16, 16, batch=3), ragged(2, 2, 2, batch=3)
    still = [level.features for level in tiny_encoder()(crop, visible)]
    assert all(torch.equal(a.features, b) for a, b in zip(encoder.eval()(crop, visible), still, strict=True))
    encoder.train()
    draws = []
    for seed in (0, 0, 1):
        levels = encoder(crop, visible, generator=torch.Generator().manual_seed(seed))
        draws.append(torch.cat([level.features.flatten() for level in levels]))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_stochastic_depth_keeps_the_mean_of_a_branch():
    encoder = tiny_encoder()
    x = encoder._stem(crop_of(8, 8, 8, batch=1), encoder.layout(crop_of(8, 8, 8, batch=1), None), None)
    generator = torch.Generator().manual_seed(0)
    kept = torch.stack([kept_samples(x, 0.25, generator).flatten() for _ in range(4000)])
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.75])
    assert abs(kept.mean() - 1) < 0.03


def test_rates_of_stochastic_depth_grow_with_depth_from_zero():
    settings = WaveFormerSettings(channels=(12, 24), depths=(2, 3), heads=(1, 2), drop_path=0.4)
    encoder = WaveFormer(settings, {"any": 1})
    rates = [block.drop_path for stage in encoder.stages for block in stage]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_under_autocast_it_stays_close_to_full_precision():
    encoder, crop, visible = (
        tiny_encoder(torch.float32, scale=0.1),
        crop_of(16, 16, 16, dtype=torch.float32),
        ragged(2, 2, 2),
    )
    exact = encoder(crop, visible)
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(crop, visible)
    for a, b in zip(found, exact, strict=True):
        assert torch.isfinite(a.features).all()
        assert (a.features.float() - b.features).square().mean() <= 0.01 * b.features.square().mean()


def test_two_encoders_interleaved_are_two_encoders_apart():
    a, b, crop, visible = tiny_encoder(seed=0), tiny_encoder(seed=1), crop_of(16, 16, 16), ragged(2, 2, 2)
    other = ragged(2, 2, 2, seed=8)
    apart = [a(crop, visible)[-1].features, b(crop, other)[-1].features]
    a(crop, visible), b(crop, visible), a(crop, other)
    assert torch.equal(b(crop, other)[-1].features, apart[1])
    assert torch.equal(a(crop, visible)[-1].features, apart[0])


WRONG_SETTINGS = {
    "stages that differ": ({"channels": (12, 24), "depths": (1,), "heads": (1, 2)}, "same stages"),
    "no stage": ({"channels": (), "depths": (), "heads": ()}, "same stages"),
    "channels that heads do not divide": ({"channels": (13,), "depths": (1,), "heads": (2,)}, "whole number"),
    "a head too thin for positions": ({"channels": (10,), "depths": (1,), "heads": (2,)}, "at least 6"),
    "certain loss of a block": ({"drop_path": 1.0}, r"must be in \[0, 1\)"),
}


@pytest.mark.parametrize("case", WRONG_SETTINGS)
def test_impossible_settings_are_refused(case):
    settings, sentence = WRONG_SETTINGS[case]
    with pytest.raises(ModelError, match=sentence):
        WaveFormerSettings(**settings)


def test_wrong_calls_are_refused_with_what_would_be_right():
    encoder, crop = tiny_encoder(stems=MODALITIES), crop_of(16, 16, 16)
    with pytest.raises(ModelError, match=r"CT.*MR.*modality="):
        encoder(crop)
    with pytest.raises(ModelError, match="no stem for modality 'PET'"):
        encoder(crop, modality="PET")
    with pytest.raises(ShapeError, match=r"'CT' takes 3 channel\(s\), the crop has 1"):
        encoder(crop, modality="CT")
    with pytest.raises(ShapeError, match="2 sample"):
        encoder(crop, ragged(2, 2, 2, batch=1), modality="MR")
    with pytest.raises(ShapeError, match="grid"):
        encoder(crop, ragged(2, 2, 3), modality="MR")
    with pytest.raises(ShapeError, match=r"\[B, C, D, H, W\]"):
        encoder(crop[0], modality="MR")
    with pytest.raises(ModelError, match="at least one stem"):
        WaveFormer(SETTINGS, {})


def test_a_single_unnamed_stem_takes_every_modality():
    encoder, crop = tiny_encoder(), crop_of(16, 16, 16)
    assert torch.equal(encoder(crop, modality="MR")[-1], encoder(crop)[-1])
