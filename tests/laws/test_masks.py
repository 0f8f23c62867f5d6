"""Laws I9, I10 and I11: exact counts, nesting, and fair, reproducible draws."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import stats

from wavespark.masking import BlockMasking, NestedMasking, choice
from wavespark.masking.choice import block_of_cells

SMALL = list(itertools.product(range(1, 10), repeat=3))[1:]
"""Every grid of 1 to 9 cells an axis, but the one that has a single cell."""
RANDOM = np.random.default_rng(7)
LARGE = [tuple(int(n) for n in RANDOM.integers(1, 17, 3)) for _ in range(60)]
ODD = [(1, 1, 2), (1, 1, 16), (16, 1, 1), (1, 16, 16), (2, 32, 32), (1, 1, 200), (3, 64, 5), (16, 16, 16), (13, 2, 7)]
GRIDS = [*SMALL, *[g for g in LARGE if g != (1, 1, 1)], *ODD]
BLOCKS = (1, 3, 4, "adaptive")


def expected(cells: int, ratio: float) -> int:
    """The count of the contract, in numpy's arithmetic and not in the code's."""
    return int(np.clip(np.floor(np.float64(ratio) * cells + 0.5), 1, cells - 1))


def some_valid(grid: tuple[int, int, int], batch: int) -> torch.Tensor:
    """Random valid cells, at least two in each volume."""
    valid = RANDOM.random((batch, *grid)) < RANDOM.random((batch, 1, 1, 1))
    valid.reshape(batch, -1)[:, [0, -1]] = True
    return torch.from_numpy(valid)


def drawn(masking, grid, seed=0, batch=2, valid=None):
    return masking.sample(draws=[(seed, 0, f"{grid} {b}") for b in range(batch)], valid=valid)


@pytest.mark.parametrize("block", BLOCKS)
def test_I9_the_counts_of_every_volume_are_exact_on_every_grid(block):
    for grid in GRIDS:
        ratio = float(RANDOM.uniform(0.01, 0.99))
        masks = drawn(NestedMasking(grid=grid, ratio=ratio, local_ratio=0.8, block=block), grid)
        hidden = expected(int(np.prod(grid)), ratio)
        local = expected(hidden, 0.8) if hidden > 1 else 0
        assert masks.hidden.shape == (2, *grid)
        for name, count in (("hidden", hidden), ("visible", np.prod(grid) - hidden), ("local", local)):
            assert getattr(masks, name).sum((1, 2, 3)).tolist() == [count, count], (grid, block, ratio, name)
        assert hidden >= 1
        assert masks.visible.sum((1, 2, 3)).min() >= 1


@pytest.mark.parametrize("block", BLOCKS)
def test_I9_the_counts_refer_to_the_valid_cells_of_each_volume(block):
    for grid in GRIDS[::5]:
        valid = some_valid(grid, 3)
        masks = drawn(NestedMasking(grid=grid, block=block), grid, batch=3, valid=valid)
        counts = valid.sum((1, 2, 3)).tolist()
        assert masks.hidden.sum((1, 2, 3)).tolist() == [expected(n, 0.6) for n in counts]
        hidden = masks.hidden.sum((1, 2, 3)).tolist()
        assert masks.local.sum((1, 2, 3)).tolist() == [expected(n, 0.8) if n > 1 else 0 for n in hidden]


@pytest.mark.parametrize("block", BLOCKS)
def test_I10_local_is_inside_global_and_visible_and_hidden_make_up_the_valid_cells(block):
    for grid in GRIDS[::5]:
        valid = some_valid(grid, 2)
        for given in (None, valid):
            m = drawn(NestedMasking(grid=grid, block=block), grid, valid=given)
            assert not (m.visible & m.hidden).any()
            assert torch.equal(m.visible | m.hidden, torch.ones_like(valid) if given is None else valid)
            assert not (m.local & m.global_only).any()
            assert torch.equal(m.local | m.global_only, m.hidden)
            assert torch.equal(m.valid, m.visible | m.hidden)


def test_the_visible_sites_are_the_visible_cells_in_lexicographic_order():
    m = drawn(BlockMasking(grid=(5, 3, 7)), "sites", batch=3)
    assert m.visible_sites.dtype is torch.int32
    assert m.visible_sites.tolist() == np.argwhere(m.visible.numpy()).tolist()
    assert m.visible_sites.tolist() == sorted(m.visible_sites.tolist())


def p_of_equal_frequency(masking, valid=None, draws=10_000, which="hidden") -> float:
    """p of a chi-square test that each valid cell is chosen with frequency chosen / valid.

    Cells of one draw depend on each other (their number is fixed, blocks go together), so the deviations are first made
    independent and of variance 1 by the covariance of the draws. Directions in which no draw varies must not deviate.
    """
    cells = torch.ones(masking.grid, dtype=torch.bool) if valid is None else valid
    batch = cells.expand(draws, *masking.grid)
    masks = masking.sample(batch=draws, generator=torch.Generator().manual_seed(11), valid=batch)
    chosen = getattr(masks, which)[:, cells].double().numpy()
    assert (chosen.sum(1) == chosen[0].sum()).all()
    deviation = chosen.mean(0) - chosen[0].mean()
    variances, directions = np.linalg.eigh(np.cov(chosen.T))
    along = deviation @ directions
    varies = variances > 1e-9
    if np.abs(along[~varies]).max(initial=0) > 1e-9:
        return 0.0
    return float(stats.chi2(varies.sum()).sf(draws * (along[varies] ** 2 / variances[varies]).sum()))


HOLES = torch.from_numpy(np.random.default_rng(3).random((5, 4, 6)) < 0.5)
EVEN_HOLES = torch.arange(4).remainder(2).eq(0).expand(4, 4, 4)
FAIR = {
    "single cells": ({"grid": (4, 4, 4)}, None),
    "equal blocks, the last one cut": ({"grid": (4, 4, 8), "block": 2}, None),
    "equal blocks, no cut": ({"grid": (4, 4, 4), "block": 2, "ratio": 0.5}, None),
    "one block": ({"grid": (3, 2, 4), "block": 4}, None),
    "blocks cut by the border": ({"grid": (5, 3, 7), "block": 2}, None),
    "few, very unequal blocks": ({"grid": (5, 1, 9), "block": 4, "ratio": 0.1}, None),
    "adaptive": ({"grid": (2, 3, 9), "block": "adaptive"}, None),
    "invalid cells, single": ({"grid": (5, 4, 6)}, HOLES),
    "invalid cells, blocks": ({"grid": (5, 4, 6), "block": 2}, HOLES),
    "invalid cells, equal blocks": ({"grid": (4, 4, 4), "block": 2}, EVEN_HOLES),
}


@pytest.mark.parametrize("name", FAIR)
def test_I11_every_valid_cell_is_hidden_equally_often(name):
    settings, valid = FAIR[name]
    assert p_of_equal_frequency(BlockMasking(**settings), valid) > 1e-3


@pytest.mark.parametrize("block", [1, 2])
def test_I11_every_valid_cell_is_local_equally_often(block):
    assert p_of_equal_frequency(NestedMasking(grid=(5, 3, 4), block=block), which="local") > 1e-3


@pytest.mark.parametrize("fault", ["the arc always starts at a block", "cells of a block in raster order"])
def test_the_frequency_test_notices_an_unfair_sampler(fault, monkeypatch):
    def unfair(valid_S, count, grid, edges, stream, weights_S=None, forced_S=None):
        block_of_S, num_blocks = block_of_cells(grid, edges)
        inside = np.linspace(0, 0.9, len(valid_S)) if "raster" in fault else stream.random(len(valid_S))
        chosen_S = np.zeros_like(valid_S)
        chosen_S[np.argsort(stream.permutation(num_blocks)[block_of_S] + inside)[:count]] = True
        return chosen_S

    monkeypatch.setattr("wavespark.masking.blocks.choose", unfair)
    grid, block = ((4, 4, 8), 2) if "raster" in fault else ((5, 1, 9), 4)
    assert p_of_equal_frequency(BlockMasking(grid=grid, block=block, ratio=0.1)) < 1e-6


@pytest.mark.parametrize("masking", [BlockMasking(grid=(6, 5, 4), block=2), NestedMasking(grid=(6, 5, 4))])
def test_I11_a_volume_is_drawn_the_same_in_any_batch_order_and_after_a_restart(masking):
    draws = [(3, step, f"volume {v}") for step in range(3) for v in range(4)]
    together = masking.sample(draws=draws)
    order = np.random.default_rng(0).permutation(len(draws))
    shuffled = masking.sample(draws=[draws[i] for i in order])
    for name in vars(together):
        assert torch.equal(getattr(together, name)[order], getattr(shuffled, name)), name
        for i, draw in enumerate(draws):
            assert torch.equal(getattr(together, name)[i], getattr(masking.sample(draws=[draw]), name)[0])
    assert len({tuple(h.reshape(-1).tolist()) for h in together.hidden}) == len(draws)


def test_I11_a_volume_is_drawn_the_same_in_another_process():
    code = (
        "from wavespark.masking import BlockMasking;"
        "m = BlockMasking(grid=(3, 4, 5), block=2).sample(draws=[(1, 2, 'a'), (1, 2, 'b')]);"
        "print(m.hidden.int().reshape(-1).tolist())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    here = BlockMasking(grid=(3, 4, 5), block=2).sample(draws=[(1, 2, "a"), (1, 2, "b")])
    assert there.strip() == str(here.hidden.int().reshape(-1).tolist())


def test_I11_the_draw_of_a_seed_is_the_same_in_every_version():
    m = NestedMasking(grid=(2, 2, 3), block=2).sample(draws=[(1, 2, "volume")])
    assert m.hidden.int().reshape(-1).tolist() == PINNED_HIDDEN
    assert m.local.int().reshape(-1).tolist() == PINNED_LOCAL


PINNED_HIDDEN = [1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0, 1]
PINNED_LOCAL = [1, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0, 1]


def test_a_nested_masking_hides_what_the_plain_one_hides():
    draws = [(0, 1, "a"), (0, 1, "b")]
    nested, plain = NestedMasking(grid=(7, 7, 7), block=3), BlockMasking(grid=(7, 7, 7), block=3)
    assert torch.equal(nested.sample(draws=draws).hidden, plain.sample(draws=draws).hidden)


def test_equal_weights_draw_what_no_weights_draw():
    draws = [(0, 1, "a"), (0, 1, "b")]
    for block in BLOCKS:
        masking = BlockMasking(grid=(5, 6, 9), block=block)
        for weight in (0.0, 0.3, 1.0):
            same = masking.sample(draws=draws, weights=torch.full((2, 5, 6, 9), weight))
            assert torch.equal(masking.sample(draws=draws).hidden, same.hidden), (block, weight)


def test_whole_blocks_are_hidden_and_only_one_is_cut_where_blocks_are_equal():
    masking = BlockMasking(grid=(8, 8, 8), block=4, ratio=0.6)
    for hidden in masking.sample(batch=20, generator=np.random.default_rng(0)).hidden:
        shares = hidden.reshape(2, 4, 2, 4, 2, 4).float().mean((1, 3, 5)).reshape(-1).sort().values
        assert shares.tolist() == [0, 0, 0, pytest.approx(51 / 64), 1, 1, 1, 1]


def test_blocks_without_a_valid_cell_count_for_nothing():
    """The others are equal in size, so one is cut; and equal in weight, so there are no weights."""
    valid = torch.ones(20, 4, 4, 8, dtype=torch.bool)
    valid[:, :2, :2, 4:] = False
    draws, masking = [(0, step, "a") for step in range(20)], BlockMasking(grid=(4, 4, 8), block=2)
    hidden = masking.sample(draws=draws, valid=valid).hidden
    shares = hidden.reshape(20, 2, 2, 2, 2, 4, 2).float().mean((2, 4, 6)).reshape(20, -1)
    assert (shares.gt(0) & shares.lt(1)).sum(1).tolist() == [1] * 20
    weights = torch.where(valid, 0.3, 7.0)
    assert torch.equal(masking.sample(draws=draws, valid=valid, weights=weights).hidden, hidden)


def test_at_most_two_blocks_are_cut_where_blocks_are_unequal():
    masking = BlockMasking(grid=(9, 9, 9), block=4)
    block_of_S, num_blocks = choice.block_of_cells((9, 9, 9), (4, 4, 4))
    for hidden in masking.sample(batch=50, generator=np.random.default_rng(0)).hidden:
        shares = np.bincount(block_of_S, weights=hidden.reshape(-1)) / np.bincount(block_of_S, minlength=num_blocks)
        assert ((shares > 0) & (shares < 1)).sum() <= 2
