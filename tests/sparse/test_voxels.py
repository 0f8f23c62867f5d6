"""The value itself: sites that cannot be wrong, and what moves values without arithmetic."""

import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavespark.errors import ShapeError, SitesError
from wavespark.sparse import (
    CellLayout,
    SparseVoxels,
    StridedConv3d,
    SubmanifoldConv3d,
    TransposedConv3d,
    VisibleCells,
    cat,
    prune,
)
from wavespark.sparse.voxels.coordinates import Coordinates


def sites(*rows: tuple[int, int, int, int]) -> Tensor:
    return torch.tensor(rows, dtype=torch.int32)


GOOD = [(0, 0, 0, 0), (0, 1, 2, 3), (1, 0, 0, 0)]


@pytest.mark.parametrize(
    ("rows", "stride", "words"),
    [
        ([*GOOD, (0, 1, 2, 3)], 1, ["row 3", "repeats row 1", "[0, 1, 2, 3]"]),
        ([*GOOD, (1, 0, -1, 0)], 1, ["row 3", "negative"]),
        ([*GOOD, (2, 0, 0, 0)], 1, ["row 3", "sample 2", "2"]),
        ([*GOOD, (-1, 0, 0, 0)], 1, ["row 3", "negative"]),
        ([(0, 0, 0, 0), (0, 2, 2, 4), (0, 2, 3, 4)], 2, ["row 2", "stride"]),
    ],
)
def test_a_bad_site_is_refused_and_its_row_named(
    rows: list[tuple[int, int, int, int]], stride: int, words: list[str]
) -> None:
    with pytest.raises(SitesError) as caught:
        SparseVoxels(torch.zeros(len(rows), 1), sites(*rows), stride=stride, batch_size=2)
    assert all(word in str(caught.value) for word in words)


def test_a_repeated_site_in_an_almost_empty_grid_is_found_too() -> None:
    rows = [(0, 10_000 * i, 20_000 * i, 30_000 * i) for i in range(9)]
    assert Coordinates(sites(*rows), (1, 1, 1))._table is None
    with pytest.raises(SitesError, match="row 9 of sites repeats row 4"):
        SparseVoxels(torch.zeros(10, 1), sites(*rows, rows[4]))


@pytest.mark.parametrize("wrong", [torch.zeros(3, 4), torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4).half()])
def test_sites_that_are_not_whole_numbers_are_refused(wrong: Tensor) -> None:
    with pytest.raises(SitesError, match="whole numbers"):
        SparseVoxels(torch.zeros(3, 1), wrong)


def test_sites_of_another_number_shape_or_device_than_the_features_are_refused() -> None:
    with pytest.raises(SitesError, match="row 2"):
        SparseVoxels(torch.zeros(2, 1), sites(*GOOD))
    with pytest.raises(SitesError, match="shape"):
        SparseVoxels(torch.zeros(2, 1), sites(*GOOD)[:, :3])
    with pytest.raises(SitesError, match="meta"):
        SparseVoxels(torch.zeros(3, 1, device="meta"), sites(*GOOD))
    with pytest.raises(SitesError, match="batch_size"):
        SparseVoxels(torch.zeros(0, 1), torch.zeros(0, 4, dtype=torch.int32))


def test_a_site_beyond_int32_is_refused() -> None:
    with pytest.raises(SitesError, match=r"row 1.*int32"):
        SparseVoxels(torch.zeros(2, 1), torch.tensor([[0, 0, 0, 0], [0, 2**31, 0, 0]]))


def test_three_points_come_back_unchanged() -> None:
    features = torch.randn(3, 2)
    x = SparseVoxels(features, sites(*GOOD), stride=1, batch_size=2)
    assert x.features is features
    assert torch.equal(x.sites, sites(*GOOD))
    assert (x.stride, x.batch_size, x.channels, len(x)) == (1, 2, 2, 3)
    with pytest.raises(AttributeError):
        x.features = features  # type: ignore[misc]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 3), st.tuples(*[st.integers(1, 5)] * 3), st.floats(0, 1), st.integers(0, 99))
def test_dense_and_back_keeps_visible_values_and_no_others(
    batch: int, grid: tuple[int, int, int], share: float, seed: int
) -> None:
    g = torch.Generator().manual_seed(seed)
    visible = torch.rand(batch, *grid, generator=g) < share
    dense = torch.randn(batch, 2, *grid, generator=g)
    poisoned = dense.where(visible[:, None], torch.nan).requires_grad_()
    x = SparseVoxels.from_dense(poisoned, visible)
    assert torch.equal(x.to_dense(grid, fill=7.0), dense.where(visible[:, None], 7.0))
    grad = torch.autograd.grad(x.to_dense(grid).sum(), poisoned)[0]
    assert torch.equal(grad, visible[:, None].float().expand_as(dense))


def test_to_dense_refuses_a_grid_that_a_site_leaves() -> None:
    x = SparseVoxels(torch.ones(3, 2), sites(*GOOD))
    assert x.to_dense().shape == (2, 2, 2, 3, 4)
    assert x.to_dense((2, 2, 4, 4, 4)).shape == (2, 2, 4, 4, 4)
    with pytest.raises(SitesError, match="row 1"):
        x.to_dense((2, 2, 2))
    with pytest.raises(ShapeError):
        x.to_dense((4, 4))


def test_the_sum_of_two_values_is_on_the_union_of_their_sites() -> None:
    a = SparseVoxels(torch.ones(3, 2), sites(*GOOD), batch_size=2)
    b = SparseVoxels(torch.full((2, 2), 5.0), sites((1, 3, 3, 3), (0, 1, 2, 3)), batch_size=2)
    total = a + b
    assert torch.equal(total.to_dense((4, 4, 4)), a.to_dense((4, 4, 4)) + b.to_dense((4, 4, 4)))
    assert len(total) == 4
    assert (a + a).coordinates is a.coordinates
    with pytest.raises(SitesError, match="lattice"):
        a + SparseVoxels(torch.ones(1, 2), sites((0, 2, 2, 2)), stride=2, batch_size=2)
    with pytest.raises(ShapeError):
        a + SparseVoxels(torch.ones(1, 1), sites((0, 2, 2, 2)), batch_size=2)


def test_cat_follows_the_rows_of_the_first_and_refuses_other_sites() -> None:
    a = SparseVoxels(torch.arange(3.0)[:, None], sites(*GOOD))
    b = SparseVoxels(torch.tensor([[12.0], [10.0], [11.0]]), sites(GOOD[2], GOOD[0], GOOD[1]))
    assert cat([a, b]).features.tolist() == [[0, 10], [1, 11], [2, 12]]
    with pytest.raises(SitesError, match="value 1"):
        cat([a, prune(b, torch.tensor([True, True, False]))])


def test_prune_keeps_the_rows_that_are_marked() -> None:
    x = prune(SparseVoxels(torch.arange(3.0)[:, None], sites(*GOOD)), torch.tensor([True, False, True]))
    assert x.sites.tolist() == [list(GOOD[0]), list(GOOD[2])]
    assert x.features.flatten().tolist() == [0, 2]
    with pytest.raises(ShapeError):
        prune(x, torch.tensor([1, 0]))


def test_maps_are_made_once_shared_on_the_same_sites_and_freed_with_them() -> None:
    x = SparseVoxels.from_dense(torch.randn(1, 4, 6, 6, 6), torch.rand(1, 6, 6, 6) < 0.5)
    conv, down, up = SubmanifoldConv3d(4, 4), StridedConv3d(4, 4), TransposedConv3d(4, 4)
    y = conv(x)
    assert y.coordinates is x.coordinates
    kept = dict(x.coordinates._kept)
    conv(y)
    coarse = down(y)
    assert down(x).coordinates is coarse.coordinates
    assert up(coarse, like=x).coordinates is x.coordinates
    assert all(x.coordinates._kept[key] is value for key, value in kept.items())
    gone = weakref.ref(x.coordinates)
    gc.disable()
    try:
        del x, y, coarse, kept
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(("size", "stride"), [((16, 16, 16), 1), ((14, 9, 16), 1), ((16, 16, 8), 2), ((13, 16, 8), 2)])
def test_cells_to_sites_and_back_are_the_same_values(size: tuple[int, int, int], stride: int) -> None:
    grid = tuple(-(-s // 4) for s in size)
    visible = torch.rand(2, *grid) < 0.5
    visible[:, 0, 0, 0] = visible[:, -1, -1, -1] = True
    tokens = tuple(-(-s // stride) for s in size)
    cells = VisibleCells.from_dense(torch.randn(2, 3, *tokens), visible, cell=4 // stride)
    layout = CellLayout.of(visible, size=size, cell=(4, 4, 4))
    cells = VisibleCells(features=cells.features, layout=layout).zero_outside()
    sparse = cells.to_sparse()
    assert (sparse.stride, sparse.batch_size) == (stride, 2)
    shuffle = torch.randperm(len(sparse))
    back = SparseVoxels(sparse.features[shuffle], sparse.sites[shuffle], stride=stride, batch_size=2).to_cells(4, size)
    assert torch.equal(back.cells, cells.cells)
    assert torch.equal(back.features, cells.features)


def test_a_partly_active_cell_cannot_become_a_visible_one() -> None:
    x = SparseVoxels(torch.ones(3, 2), sites(*GOOD))
    with pytest.raises(SitesError, match="only partly active"):
        x.to_cells(4)
    with pytest.raises(SitesError, match="beyond the crop"):
        x.to_cells(4, (1, 4, 4))
