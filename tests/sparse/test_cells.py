"""Visible cells: what goes in comes out, and 3^3 convolutions on them (law I5)."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from laws.tiny import PRECISIONS, crop_of, grid_of, ragged, voxels_of
from wavespark.errors import ShapeError
from wavespark.sparse import (
    CellLayout,
    StridedConv3d,
    TransposedConv3d,
    VisibleCells,
    cat,
    gather_cells,
    submanifold_conv,
)
from wavespark.sparse.cells.forms import tuning

SIZES = [(24, 16, 32), (19, 24, 13)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [*PRECISIONS, torch.int16])
def test_from_dense_to_dense_returns_what_is_visible_and_the_fill_elsewhere(size, dtype):
    crop, visible = (100 * crop_of(*size, channels=3)).to(dtype), ragged(*grid_of(size))
    shown = voxels_of(visible, size).expand_as(crop)
    back = VisibleCells.from_dense(crop, visible, cell=8).to_dense(fill=7)
    assert back.dtype == dtype
    assert torch.equal(back, torch.where(shown, crop, 7))


@pytest.mark.parametrize("cell", [(8, 8, 8), (4, 8, 2), (5, 3, 16)])
def test_a_cell_need_not_be_a_cube(cell):
    size = (19, 24, 13)
    crop = crop_of(*size)
    grid = tuple(-(-s // c) for s, c in zip(size, cell, strict=True))
    full = VisibleCells.from_dense(crop, torch.ones(2, *grid, dtype=torch.bool), cell=cell)
    assert full.block == cell
    assert torch.equal(full.to_dense(), crop)


def test_cells_hold_their_own_voxels_in_lexicographic_order():
    crop = torch.arange(2 * 16**3).view(2, 1, 16, 16, 16)
    visible = ragged(2, 2, 2)
    cells = VisibleCells.from_dense(crop, visible, cell=8)
    assert torch.equal(cells.cells, visible.nonzero())
    for row, (s, d, h, w) in zip(cells.features, cells.cells.tolist(), strict=True):
        assert torch.equal(row[..., 0], crop[s, 0, 8 * d : 8 * d + 8, 8 * h : 8 * h + 8, 8 * w : 8 * w + 8])


def test_gradients_return_to_visible_voxels_alone():
    crop, visible = crop_of(19, 24, 13).requires_grad_(), ragged(*grid_of((19, 24, 13)))
    VisibleCells.from_dense(crop, visible, cell=8).features.sum().backward()
    assert torch.equal(crop.grad, voxels_of(visible, (19, 24, 13)).to(crop))


@pytest.mark.parametrize("size", SIZES)
def test_the_sparse_form_holds_the_same_values_at_the_same_voxels(size):
    crop, visible = crop_of(*size, channels=3), ragged(*grid_of(size))
    voxels = VisibleCells.from_dense(crop, visible, cell=8).to_sparse()
    s, d, h, w = voxels.sites.long().unbind(1)
    assert torch.equal(voxels.features, crop.movedim(1, -1)[s, d, h, w])
    assert len(voxels.sites) == voxels_of(visible, size).sum()
    assert len(torch.unique(voxels.sites, dim=0)) == len(voxels.sites)


@pytest.mark.parametrize("chunk", [1, 40_000, 2**22], ids=["a cell at a time", "some cells at a time", "all at once"])
@pytest.mark.parametrize("kind", ["full", "wider", "depthwise", "one channel", "one channel to many"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_a_convolution_equals_the_dense_one_times_the_mask_and_so_do_all_gradients(
    monkeypatch, dtype, size, kind, chunk
):
    monkeypatch.setattr(tuning, "TUNING", replace(tuning.TUNING, chunk_bytes=chunk))
    into, out, groups = {
        "full": (6, 6, 1),
        "wider": (6, 10, 1),
        "depthwise": (6, 6, 6),
        "one channel": (1, 1, 1),
        "one channel to many": (1, 5, 1),
    }[kind]
    generator = torch.Generator().manual_seed(0)
    weight = (
        torch.randn(out, into // groups, 3, 3, 3, generator=generator, dtype=torch.float64)
        / (27 * into // groups) ** 0.5
    )
    weight = weight.to(dtype).requires_grad_()
    bias = torch.randn(out, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    crop, visible = crop_of(*size, channels=into, dtype=dtype).requires_grad_(), ragged(*grid_of(size))
    shown = voxels_of(visible, size).to(dtype)
    found = submanifold_conv(VisibleCells.from_dense(crop, visible, cell=8), weight, bias).to_dense()
    expected = F.conv3d(crop * shown, weight, bias, padding=1, groups=groups) * shown
    assert (found - expected).abs().max() <= PRECISIONS[dtype]
    # Divided by the number of terms that a gradient of a weight adds up, so that one tolerance fits all.
    scale = torch.randn(expected.shape, generator=generator, dtype=torch.float64).to(dtype) / shown.sum()
    for a, b in zip(
        *(torch.autograd.grad((y * scale).sum(), (crop, weight, bias)) for y in (found, expected)), strict=True
    ):
        assert (a - b).abs().max() <= PRECISIONS[dtype]


@pytest.mark.parametrize("block", [1, 2, 4])
def test_a_convolution_crosses_cells_of_any_number_of_tokens(block):
    size, visible = (6 * block, 4 * block, 5 * block), ragged(6, 4, 5, share=0.6)
    tokens = crop_of(*size, channels=4)
    weight = torch.randn(4, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = submanifold_conv(VisibleCells.from_dense(tokens, visible, cell=block), weight).to_dense()
    shown = voxels_of(visible, size, block)
    assert (found - F.conv3d(tokens * shown, weight, padding=1, groups=4) * shown).abs().max() <= 1e-12


def test_hidden_neighbours_may_hold_anything():
    crop, visible = crop_of(24, 24, 24, channels=4), ragged(3, 3, 3)
    poisoned = torch.where(voxels_of(visible, (24, 24, 24)), crop, torch.nan)
    weight = torch.randn(4, 4, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    a, b = (submanifold_conv(VisibleCells.from_dense(x, visible, cell=8), weight).features for x in (crop, poisoned))
    assert torch.equal(a, b)


def test_under_autocast_a_convolution_is_computed_in_the_lower_precision_and_gradients_come_back_in_the_weights_own():
    crop, visible = crop_of(16, 16, 16, channels=4, dtype=torch.float32).requires_grad_(), ragged(2, 2, 2)
    weight = torch.randn(4, 1, 3, 3, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    exact = submanifold_conv(VisibleCells.from_dense(crop, visible, cell=8), weight).features
    with torch.autocast("cpu", torch.bfloat16):
        found = submanifold_conv(VisibleCells.from_dense(crop, visible, cell=8), weight).features
    assert found.dtype == torch.bfloat16
    assert (found - exact).abs().max() <= 0.1
    gradients = [torch.autograd.grad(y.float().square().mean(), (crop, weight)) for y in (found, exact)]
    for a, b in zip(*gradients, strict=True):
        assert a.dtype == torch.float32
        assert (a - b).abs().max() <= 0.02 * b.abs().max()


def test_the_gradient_of_a_weight_does_not_lose_precision_with_the_number_of_chunks(monkeypatch):
    """Summed in bfloat16, hundreds of chunks of like sign would stop adding up."""
    layout = CellLayout.of(torch.ones(1, 16, 16, 2, dtype=torch.bool), size=(32, 32, 4), cell=(2, 2, 2))
    features = torch.ones(512, 2, 2, 2, 4, dtype=torch.bfloat16)
    weight = torch.ones(4, 1, 3, 3, 3, dtype=torch.bfloat16, requires_grad=True)
    monkeypatch.setattr(tuning, "TUNING", replace(tuning.TUNING, chunk_bytes=1))
    submanifold_conv(VisibleCells(features=features, layout=layout), weight).features.sum().backward()
    assert weight.grad.dtype == torch.bfloat16
    assert abs(weight.grad[0, 0, 1, 1, 1].item() / 4096 - 1) <= 0.01


WRONG = {
    "a mask of numbers": (
        lambda: VisibleCells.from_dense(torch.zeros(1, 1, 8, 8, 8), torch.ones(1, 1, 1, 1), cell=8),
        "must be boolean",
    ),
    "a mask of another grid": (
        lambda: VisibleCells.from_dense(torch.zeros(1, 1, 9, 8, 8), torch.ones(1, 1, 1, 1).bool(), cell=8),
        r"grid \(2, 1, 1\)",
    ),
    "a mask of another batch": (
        lambda: VisibleCells.from_dense(torch.zeros(2, 1, 8, 8, 8), torch.ones(1, 1, 1, 1).bool(), cell=8),
        "2 sample",
    ),
    "nothing visible": (
        lambda: VisibleCells.from_dense(torch.zeros(1, 1, 8, 8, 8), torch.zeros(1, 1, 1, 1).bool(), cell=8),
        "sample 0 has no visible cell",
    ),
    "a crop without channels": (
        lambda: VisibleCells.from_dense(torch.zeros(1, 8, 8, 8), torch.ones(1, 1, 1, 1).bool(), cell=8),
        r"\[B, C, D, H, W\]",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_is_refused_with_the_numbers(case):
    make, sentence = WRONG[case]
    with pytest.raises(ShapeError, match=sentence):
        make()


def layout_16(batch: int = 1) -> CellLayout:
    return CellLayout.of(torch.ones(batch, 2, 2, 2, dtype=torch.bool), size=(16, 16, 16), cell=(8, 8, 8))


@pytest.mark.parametrize("shape", [(1, 1, 8, 16, 16), (1, 1, 16, 16, 17), (1, 1, 24, 16, 16), (2, 1, 16, 16, 16)])
def test_a_volume_that_does_not_fit_its_layout_is_refused_rather_than_padded_or_cut(shape):
    with pytest.raises(ShapeError, match="layout"):
        gather_cells(torch.zeros(shape), layout_16(), (8, 8, 8))


def test_features_that_do_not_fit_the_layout_are_refused():
    with pytest.raises(ShapeError, match=r"\[8, b, b, b, C\]"):
        VisibleCells(features=torch.zeros(7, 2, 2, 2, 1), layout=layout_16())
    with pytest.raises(ShapeError, match="do not divide"):
        VisibleCells(features=torch.zeros(8, 3, 3, 3, 1), layout=layout_16())


@pytest.mark.parametrize("shape", [(4, 4, 3, 3), (4, 4, 4, 4, 4), (4, 3, 3, 3, 3), (8, 1, 3, 3, 3)])
def test_a_weight_that_does_not_fit_is_refused(shape):
    cells = VisibleCells(features=torch.zeros(8, 2, 2, 2, 4), layout=layout_16())
    with pytest.raises(ShapeError, match="takes a weight"):
        submanifold_conv(cells, torch.zeros(shape))


def test_it_says_what_it_is():
    cells = VisibleCells(features=torch.zeros(16, 4, 4, 4, 3), layout=layout_16(2))
    assert repr(cells) == "VisibleCells(16 cells of 4 x 4 x 4 tokens, 3 channel(s), stride 2, grid 2 x 2 x 2, batch 2)"


def test_the_full_layout_of_the_same_crops_has_every_cell_in_order():
    visible = ragged(2, 3, 2)
    layout = CellLayout.of(visible, size=(16, 24, 16), cell=(8, 8, 8))
    full = layout.everywhere()
    assert full.is_full
    assert torch.equal(full.cells, torch.ones_like(visible).nonzero())
    assert torch.equal(full.cells[full.rows_of(layout.cells)], layout.cells)


def two_values(channels=(3, 3)):
    size, visible = (19, 24, 13), ragged(*grid_of((19, 24, 13)))
    crops = [crop_of(*size, channels=c, seed=seed).requires_grad_() for seed, c in enumerate(channels)]
    # Layouts made twice are the same cells.
    return crops, [VisibleCells.from_dense(crop, visible.clone(), cell=8) for crop in crops]


def test_the_sum_of_two_values_and_their_channels_side_by_side_are_those_of_dense_tensors():
    crops, (a, b) = two_values()
    assert torch.equal((a + b).to_dense(), a.to_dense() + b.to_dense())
    crops, (a, b) = two_values((3, 2))
    both = cat([a, b, a])
    assert both.channels == 8
    assert torch.equal(both.to_dense(), torch.cat([a.to_dense(), b.to_dense(), a.to_dense()], 1))
    shown = voxels_of(ragged(*grid_of((19, 24, 13))), (19, 24, 13)).double()
    first, second = torch.autograd.grad(both.to_dense().sum(), crops)
    assert torch.equal(first, (2 * shown).expand_as(first))
    assert torch.equal(second, shown.expand_as(second))


def test_values_on_other_tokens_or_of_another_kind_are_not_joined():
    _, (a, b) = two_values((3, 2))
    crop = crop_of(19, 24, 13, channels=3)
    others = VisibleCells.from_dense(crop, ~ragged(*grid_of((19, 24, 13))), cell=8)
    coarse = a.with_features(a.features[:, ::2, ::2, ::2])
    for join in (lambda x, y: x + y, lambda x, y: cat([x, y])):
        for other in (others, coarse):
            with pytest.raises(ShapeError, match=r"tokens.*VisibleCells.*VisibleCells"):
                join(a, other)
    with pytest.raises(ShapeError, match="same tokens and channels"):
        a + b
    with pytest.raises(TypeError):
        a + a.to_sparse()
    with pytest.raises(ShapeError, match="one kind, got VisibleCells, SparseVoxels"):
        cat([a, a.to_sparse()])
    with pytest.raises(ShapeError, match="at least one"):
        cat([])


@pytest.mark.parametrize("block", [(8, 8, 8), (1, 2, 4), (16, 4, 2), (1, 1, 1)], ids=str)
@pytest.mark.parametrize(("low", "high"), [(1, 1), (1, 0), (0, 1)])
def test_a_halo_names_the_tokens_that_a_padded_dense_grid_has_around_each_cell(block, low, high):
    visible = ragged(4, 3, 5)
    size = tuple(g * b for g, b in zip((4, 3, 5), block, strict=True))
    layout = CellLayout.of(visible, size=size, cell=block)
    rows = len(layout) * block[0] * block[1] * block[2]
    numbers = VisibleCells(features=torch.arange(rows).view(len(layout), *block, 1), layout=layout).to_dense(fill=rows)
    padded = F.pad(numbers[:, 0], (low, high) * 3, value=rows)
    index = layout.halo(block, low, high)
    for found, (s, *at) in zip(index, layout.cells.tolist(), strict=True):
        box = tuple(slice(a * b, a * b + low + b + high) for a, b in zip(at, block, strict=True))
        assert torch.equal(found.long(), padded[(s, *box)])


def test_a_level_becomes_children_that_end_with_the_crop():
    """Sparse voxels keep children beyond the crop; cells cut them when they leave the cells."""
    crop, visible = crop_of(19, 24, 13, channels=3), ragged(*grid_of((19, 24, 13)))
    cells = VisibleCells.from_dense(crop, visible, cell=8)
    coarse = StridedConv3d(3, 4).double()(cells)
    up = TransposedConv3d(4, 2, generative=True).double()
    mine, theirs = up(coarse), up(coarse.to_sparse())
    inside = (theirs.sites[:, 1:] < torch.tensor([19, 24, 13])).all(1)
    assert 0 < int(inside.sum()) < len(theirs)
    kept = theirs.prune(inside)
    assert len(mine.to_sparse()) == len(kept)
    torch.testing.assert_close(mine.to_dense(), kept.to_dense((19, 24, 13)), atol=1e-12, rtol=0)
