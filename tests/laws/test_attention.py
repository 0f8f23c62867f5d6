"""Laws I6 and I18: attention over gathered cells, exact relative positions."""

import pytest
import torch

from laws.tiny import SETTINGS, crop_of, ragged, tiny_encoder
from oracles import dense_waveformer
from wavespark.models import WaveFormer, WaveFormerSettings, blocks
from wavespark.models.blocks import Rotation
from wavespark.sparse import CellLayout, VisibleCells

EVEN = torch.stack([ragged(3, 2, 4, batch=1, seed=s)[0] for s in range(3)])
RAGGED = ragged(3, 2, 4, batch=3, share=0.4)
LONELY = torch.zeros(2, 3, 2, 4, dtype=torch.bool)
LONELY[0, 1, 1, 1] = True
LONELY[1] = True


def layout_of(visible: torch.Tensor) -> CellLayout:
    size = tuple(8 * n for n in visible.shape[1:])
    return CellLayout.of(visible, size=size, cell=(8, 8, 8))


@pytest.mark.parametrize("visible", [EVEN, RAGGED, LONELY], ids=["even", "ragged", "one cell beside all cells"])
def test_attention_over_gathered_cells_is_key_masked_attention_over_all_cells(visible):
    layout, heads, channels = layout_of(visible), 3, 14
    batch, cells = len(visible), visible[0].numel()
    generator = torch.Generator().manual_seed(0)
    dense = [
        torch.randn(batch, heads, cells, channels, generator=generator, dtype=torch.float64).requires_grad_()
        for _ in range(3)
    ]
    positions = torch.cartesian_prod(*[torch.arange(n) for n in visible.shape[1:]])
    seen = visible.flatten(1)
    q, k, v = (t.transpose(1, 2)[seen] for t in dense)
    rotation = Rotation.of(layout)
    found = blocks.attend(rotation.turn(q), rotation.turn(k), v, layout)
    turned = [dense_waveformer.rotate(t, positions) for t in dense[:2]]
    expected = dense_waveformer.attend(*turned, dense[2], seen).transpose(1, 2)[seen]
    assert (found - expected).abs().max() <= 1e-12
    weights = torch.randn(found.shape, generator=generator, dtype=torch.float64)
    for a, b in zip(*(torch.autograd.grad((out * weights).sum(), dense) for out in (found, expected)), strict=True):
        assert (a - b).abs().max() <= 1e-12


@pytest.mark.parametrize("head", [6, 7, 12, 16, 18, 32])
@pytest.mark.parametrize("width", [2, 3, 6, 8, 12])
def test_all_relative_positions_are_distinct(head, width):
    pairs = head // 6
    offsets = torch.cartesian_prod(*[torch.arange(1 - width, width)] * 3)
    angles = Rotation(cells_N3=offsets).angles(pairs, torch.float64)
    phases = torch.cat((angles.cos(), angles.sin()), 1).mul(1e6).round().long()
    assert len(torch.unique(phases, dim=0)) == (2 * width - 1) ** 3


@pytest.mark.parametrize("width", [3, 6])
def test_the_score_of_two_cells_depends_on_their_offset_alone_and_differs_between_offsets(width):
    """Read from the code that runs, not from a table of angles."""
    layout = layout_of(torch.ones(1, width, width, width, dtype=torch.bool))
    q, k = torch.randn(2, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    rotation = Rotation.of(layout)
    queries, keys = (rotation.turn(t.expand(width**3, 1, -1))[:, 0] for t in (q, k))
    scores = queries @ keys.T
    cells = layout.cells[:, 1:]
    offsets, which = torch.unique((cells[:, None] - cells[None]).flatten(0, 1), dim=0, return_inverse=True)
    assert len(offsets) == (2 * width - 1) ** 3
    first = torch.zeros(len(offsets), dtype=torch.float64).scatter(0, which, scores.flatten())
    assert (scores.flatten() - first[which]).abs().max() <= 1e-12
    assert first.sort().values.diff().min() > 1e-9


def test_moving_the_crop_by_whole_cells_does_not_change_the_features():
    """One more cell of empty border in front: positions, halos and wavelets move along."""
    encoder, crop = tiny_encoder(), crop_of(16, 16, 16, batch=1)
    visible = ragged(2, 2, 2, batch=1)
    wider, moved = torch.zeros(1, 3, 3, 3, dtype=torch.bool), torch.zeros(1, 1, 24, 24, 24, dtype=torch.float64)
    wider[:, 1:, 1:, 1:], moved[:, :, 8:, 8:, 8:] = visible, crop
    for a, b in zip(encoder(crop, visible), encoder(moved, wider), strict=True):
        assert (a.features - b.features).abs().max() <= 1e-12


def test_every_parity_of_every_merge_and_of_the_stem_has_a_gradient_everywhere():
    encoder, visible = tiny_encoder(), ragged(2, 2, 2)
    sum(level.features.square().sum() for level in encoder(crop_of(16, 16, 16), visible)).backward()
    for i, merge in enumerate(encoder.merges):
        gradient = merge.project.weight.grad.unflatten(1, (8, SETTINGS.channels[i]))
        assert gradient.shape[1] == 8
        assert (gradient.abs().amax((0, 2)) > 0).all()
        assert (merge.norm.weight.grad.view(8, -1).abs().amax(1) > 0).all()
    assert (encoder.stems["any"].weight.grad.abs().amax(0) > 0).all()


def test_each_of_the_eight_tokens_of_a_merge_reaches_its_own_columns():
    """A token of one parity alone: the merge's input is that token at that parity and nothing elsewhere."""
    encoder = WaveFormer(WaveFormerSettings(channels=(6, 6), depths=(0, 0), heads=(1, 1)), {"any": 1}).double().eval()
    merge = encoder.merges[0]
    torch.nn.init.normal_(merge.project.weight, generator=torch.Generator().manual_seed(0))
    layout = CellLayout.of(torch.ones(1, 1, 1, 1, dtype=torch.bool), size=(4, 4, 4), cell=(4, 4, 4))
    outputs = []
    for parity in range(8):
        tokens = torch.zeros(1, 8, 6, dtype=torch.float64)
        tokens[0, parity] = torch.arange(6)
        outputs.append(merge(VisibleCells(features=tokens.view(1, 2, 2, 2, 6), layout=layout)).features.flatten())
    assert len(torch.unique(torch.stack(outputs).mul(1e9).round(), dim=0)) == 8
