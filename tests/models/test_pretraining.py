"""SparK around every encoder and with both decoders: nothing leaks, mask tokens reach the predictions, only what is needed is decoded. I8, I12."""

from dataclasses import replace

import pytest
import torch

from laws.kinds import NAMES, encoder_of
from laws.tiny import crop_of, grid_of, ragged, voxels_of
from wavespark.models import DecoderSettings, SparK
from wavespark.sparse import VisibleCells

LIGHT = DecoderSettings(widths=(24, 12), depths=(1, 1), heads=(2, 0))


def spark(name, decoder, **more):
    encoder = encoder_of(name, **more)
    if decoder == "light":
        n = min(2, len(encoder.channels))
        decoder = DecoderSettings(widths=LIGHT.widths[:n], depths=LIGHT.depths[:n], heads=LIGHT.heads[:n])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = SparK(encoder, decoder).double()
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for p in made.decoder.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
    return made.eval()


def case(model, batch=2):
    c = model.encoder.cell[0]
    size = (c + 3, c, 2 * c - 1)
    visible = ragged(*grid_of(size, model.encoder.cell[0]), batch=batch)
    return crop_of(*size, batch=batch), visible, voxels_of(visible, size, model.encoder.cell[0])


@pytest.mark.parametrize("decoder", ["light", "unet"])
@pytest.mark.parametrize("name", NAMES)
def test_hidden_voxels_change_no_prediction_and_distinct_hidden_cells_get_distinct_ones(name, decoder):
    model = spark(name, decoder)
    crop, visible, shown = case(model)
    with torch.no_grad():
        prediction = model(crop, visible, ~visible, "any")
        assert prediction.shape == (int((~visible).sum()), *model.encoder.cell, 1)
        for poison in (torch.nan, torch.inf, 1e6):
            assert torch.equal(prediction, model(crop.where(shown, poison), visible, ~visible, "any"))
        assert len(torch.unique(prediction.flatten(1), dim=0)) == len(prediction)
        other = model(crop_of(*crop.shape[2:], seed=9), visible, ~visible, "any")
    assert (prediction - other).flatten(1).abs().amax(1).min() > 0


@pytest.mark.parametrize("decoder", ["light", "unet"])
@pytest.mark.parametrize("name", NAMES)
def test_hidden_sites_of_every_densified_map_are_exactly_zero_before_the_mask_token(name, decoder):
    model = spark(name, decoder)
    crop, visible, _ = case(model)
    levels = model.encoder(crop, visible)
    pairs = zip(model.decoder.densify, levels if decoder == "unet" else levels[::-1], strict=False)
    for densify, level in pairs:
        spread = densify.spread(level, level.layout.everywhere())
        hidden = ~visible.flatten()
        assert (spread.features[hidden] == 0).all()
        assert (spread.features[~hidden].abs().amax((1, 2, 3, 4)) > 0).all()


@pytest.mark.parametrize("decoder", ["light", "unet"])
@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns_or_joins_with_an_exact_zero(name, decoder):
    model = spark(name, decoder, stems={"MR": 1, "CT": 3}).train()
    size = (2 * model.encoder.cell[0], *[model.encoder.cell[0]] * 2)
    visible = ragged(*grid_of(size, model.encoder.cell[0]))
    model(crop_of(*size, channels=3), visible, ~visible, "CT").pow(3).sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("depths", [(1, 0), (1, 1), (1, 2), (1, 3), (1, 1, 1), (0, 2, 1)])
def test_decoding_only_near_predicted_cells_is_decoding_everything(depths, kernel):
    n = len(depths)
    settings = DecoderSettings(
        widths=(24, 12, 12)[:n], depths=depths, heads=(2, 0, 0)[:n], densify_kernel=kernel, mlp_ratio=1
    )
    model = spark("waveformer_tiny", settings)
    crop, visible = crop_of(40, 33, 32), ragged(5, 5, 4, share=0.3)
    everything = torch.ones_like(visible)
    one = torch.zeros_like(visible)
    one[0, 2, 2, 1] = one[1, 0, 4, 3] = True
    with torch.no_grad():
        whole = model(crop, visible, everything, "any")
        assert (model(crop, visible, one, "any") - whole[one.flatten()]).abs().max() < 1e-10
        assert model.decoder.reach is not None
        model.decoder.reach -= 1 if model.decoder.reach else 0  # the counterpart: less would not do
        less = model(crop, visible, one, "any")
    if kernel // 2 + sum(depths[1:]):
        assert (less - whole[one.flatten()]).abs().max() > 1e-6


def test_fewer_cells_are_decoded_where_fewer_are_predicted():
    model = spark("waveformer_tiny", LIGHT)
    crop, visible = crop_of(48, 48, 48, batch=1), ragged(6, 6, 6, batch=1)
    seen = []
    model.decoder.stages[1][0].register_forward_pre_hook(lambda module, inputs: seen.append(len(inputs[0])))
    corner = torch.zeros_like(visible)
    corner[0, 0, 0, 0] = True
    with torch.no_grad():
        model(crop, visible, corner, "any")
        model(crop, visible, torch.ones_like(visible), "any")
    assert seen == [8, 216]


def test_with_attention_at_finer_scales_everything_is_decoded():
    model = spark("waveformer_tiny", replace(LIGHT, heads=(2, 1)))
    assert model.decoder.reach is None
    crop, visible = crop_of(24, 24, 24), ragged(3, 3, 3)
    with torch.no_grad():
        whole = model(crop, visible, torch.ones_like(visible), "any")
        assert torch.equal(model(crop, visible, ~visible, "any"), whole[~visible.flatten()])


def test_tokens_of_one_hidden_cell_differ_where_the_coarsest_level_has_several():
    model = spark("isotropic_small", "light")
    crop, visible = crop_of(16, 8, 24), ragged(2, 1, 3)
    found = []
    model.decoder.norm.register_forward_hook(lambda module, inputs, output: found.append(inputs[0]))
    with torch.no_grad():
        model(crop, visible, ~visible, "any")
    tokens = found[0].flatten(1, 3)
    assert isinstance(model.encoder(crop, visible)[-1], VisibleCells)
    assert all(len(torch.unique(cell, dim=0)) == 8 for cell in tokens)
