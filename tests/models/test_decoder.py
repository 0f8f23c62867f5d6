"""From visible features to hidden voxels: mask tokens everywhere they belong, nothing leaked, nothing out of place."""

import pytest
import torch

from laws.tiny import crop_of, ragged, tiny_encoder, voxels_of
from wavespark.errors import ModelError
from wavespark.models import DecoderSettings, Densify, LightDecoder, SparK
from wavespark.sparse import VisibleCells, cut_cells

SETTINGS = DecoderSettings(widths=(24, 12), depths=(1, 1), heads=(2, 1))
SIZE = (20, 16, 24)
GRID = (3, 2, 3)


@pytest.fixture
def model():
    return spark()


def spark(stems=None, settings=SETTINGS):
    encoder = tiny_encoder(torch.float64, stems=stems)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        made = SparK(encoder, settings).double()
    with torch.no_grad():
        for p in made.decoder.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel()), dtype=torch.float64))
    return made.eval()


def predict(model, crop, visible, predicted=None, modality="any"):
    with torch.no_grad():
        return model(crop, visible, ~visible if predicted is None else predicted, modality)


def test_hidden_sites_of_a_spread_map_are_exactly_zero_before_the_mask_token(model):
    visible = ragged(*GRID)
    levels = model.encoder(crop_of(*SIZE), visible)
    for densify, level in zip(model.decoder.densify, levels[::-1], strict=False):
        spread = densify.spread(level, level.layout.everywhere())
        hidden = ~visible.flatten()
        assert spread.features[hidden].abs().max() == 0
        assert (spread.features[~hidden].abs().amax((1, 2, 3, 4)) > 0).all()
        assert torch.equal(spread.features[~hidden], densify.norm(level.features))


def test_densifying_puts_the_mask_token_exactly_where_cells_are_hidden():
    densify = Densify(6, 6).double()
    torch.nn.init.eye_(densify.project.weight)
    torch.nn.init.zeros_(densify.project.bias)
    visible = ragged(*GRID)
    level = VisibleCells.from_dense(crop_of(6, 4, 6, channels=6), visible, cell=2)
    dense = densify(level, level.layout.everywhere()).features
    hidden = ~visible.flatten()
    assert torch.equal(dense[hidden], densify.mask_token.expand_as(dense[hidden]))
    assert torch.equal(dense[~hidden], densify.norm(level.features))


def test_distinct_hidden_cells_get_distinct_predictions(model):
    visible = ragged(*GRID, share=0.4)
    prediction = predict(model, crop_of(*SIZE), visible)
    assert len(prediction) == int((~visible).sum())
    assert len(torch.unique(prediction.flatten(1), dim=0)) == len(prediction)
    gaps = torch.cdist(prediction.flatten(1), prediction.flatten(1)) + torch.eye(len(prediction)) * 1e9
    assert gaps.min() > 1e-3 * prediction.std()


def test_predictions_depend_on_what_is_visible(model):
    visible = ragged(*GRID)
    a, b = (predict(model, crop_of(*SIZE, seed=s), visible) for s in (1, 2))
    assert (a - b).abs().flatten(1).amax(1).min() > 0


@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 1e6])
def test_hidden_voxels_change_no_prediction(model, poison):
    visible, crop = ragged(*GRID), crop_of(*SIZE)
    poisoned = torch.where(voxels_of(visible, SIZE), crop, poison)
    assert torch.equal(predict(model, crop, visible), predict(model, poisoned, visible))


def test_a_sample_is_predicted_as_if_it_were_alone(model):
    visible, crop = ragged(*GRID), crop_of(*SIZE)
    both = predict(model, crop, visible)
    apart = torch.cat([predict(model, crop[i : i + 1], visible[i : i + 1]) for i in range(2)])
    assert (both - apart).abs().max() < 1e-10


def test_predictions_come_in_the_order_of_nonzero_whichever_cells_are_asked_for(model):
    visible, crop = ragged(*GRID), crop_of(*SIZE)
    everything = predict(model, crop, visible, torch.ones_like(visible))
    assert everything.shape == (2 * 18, 8, 8, 8, 1)
    some = (torch.rand(visible.shape, generator=torch.Generator().manual_seed(0)) < 0.4) & ~visible
    some[1] = False  # a sample may have none
    expected = everything[some.flatten().nonzero()[:, 0]]
    assert torch.equal(predict(model, crop, visible, some), expected)
    assert len(predict(model, crop, visible, torch.zeros_like(visible))) == 0


@pytest.mark.parametrize("block", [1, 2, 4])
def test_shuffling_tokens_to_voxels_inverts_cutting_cells(block):
    decoder = LightDecoder((12, 24, 24), (2, 4, 8), (8, 8, 8), {"CT": 3}, SETTINGS)
    crop, chosen = crop_of(*SIZE, channels=3), ragged(*GRID)
    cells = cut_cells(crop, chosen, (8, 8, 8))
    stride = 8 // block
    tokens = cells.new_empty(len(cells), block, block, block, stride**3 * 3)
    for d in range(block):
        for h in range(block):
            for w in range(block):
                box = cells[
                    :, d * stride : (d + 1) * stride, h * stride : (h + 1) * stride, w * stride : (w + 1) * stride
                ]
                tokens[:, d, h, w] = box.flatten(1)
    assert torch.equal(decoder._shuffle(tokens, 3), cells)


def test_idle_heads_and_stems_and_unused_levels_get_gradients_that_are_exactly_zero():
    model = spark(stems={"MR": 1, "CT": 3}).train()
    visible = ragged(*GRID)
    model(crop_of(*SIZE, channels=3), visible, ~visible, "CT").square().sum().backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []
    idle = {name for name, p in model.named_parameters() if p.grad.abs().max() == 0}
    assert idle >= {"encoder.stems.MR.weight", "decoder.heads.MR.weight", "encoder.norms.0.weight"}
    assert not [n for n in idle if not n.startswith(("encoder.stems.MR", "decoder.heads.MR", "encoder.norms.0"))]


def test_an_idle_modality_changes_no_prediction():
    model = spark(stems={"MR": 1, "CT": 3})
    visible = ragged(*GRID)
    crop = crop_of(*SIZE, channels=3)
    before = predict(model.train(), crop, visible, modality="CT")
    with torch.no_grad():
        for p in (*model.encoder.stems["MR"].parameters(), *model.decoder.heads["MR"].parameters()):
            p.fill_(3.0)
    assert torch.equal(before, predict(model, crop, visible, modality="CT"))
    assert torch.equal(before, predict(model.eval(), crop, visible, modality="CT"))


@pytest.mark.parametrize("scales", [1, 2, 3])
def test_any_number_of_scales_decodes(scales):
    settings = DecoderSettings(widths=(24, 12, 12)[:scales], depths=(1, 0, 1)[:scales], heads=(2, 1, 1)[:scales])
    model, visible = spark(settings=settings), ragged(*GRID)
    prediction = predict(model, crop_of(*SIZE), visible)
    assert prediction.shape == (int((~visible).sum()), 8, 8, 8, 1)
    assert torch.isfinite(prediction).all()


def test_settings_that_do_not_fit_are_refused():
    for wrong in (
        {"widths": (24,)},
        {"widths": (25, 12)},
        {"widths": (24, 12), "heads": (8, 1)},
        {"heads": (0, 1)},
        {"heads": (2, -1)},
        {"densify_kernel": 2},
        {"widths": (), "depths": (), "heads": ()},
    ):
        with pytest.raises(ModelError):
            DecoderSettings(**{"widths": (24, 12), "depths": (1, 1), "heads": (2, 1)} | wrong)
    four = DecoderSettings(widths=(12,) * 4, depths=(1,) * 4, heads=(1,) * 4)
    with pytest.raises(ModelError, match="4 scale"):
        LightDecoder((12, 24, 24), (2, 4, 8), (8, 8, 8), {"MR": 1}, four)
