"""Published bugs of peers and of the seed in choosing what is hidden, that must never be ours."""

import numpy as np
import pytest
import torch

from wavespark.errors import MaskError, ShapeError
from wavespark.masking import BlockMasking, LegacyRule, NestedMasking

MASKINGS = (BlockMasking, NestedMasking)


@pytest.mark.parametrize("block", [2, 3, 8, 100, "adaptive"])
@pytest.mark.parametrize("masking", MASKINGS)
def test_a_block_as_large_as_the_grid_still_hides_the_exact_number(masking, block):
    """SparK goes on silently, nnssl hides nothing or makes an empty mask, the seed hides everything."""
    for grid in [(2, 2, 2), (4, 4, 4), (3, 3, 3), (1, 1, 2), (1, 4, 4)]:
        hidden = masking(grid=grid, block=block).sample(draws=[(0, 0, "a")]).hidden
        assert int(hidden.sum()) == int(np.floor(0.6 * np.prod(grid) + 0.5))


@pytest.mark.parametrize("ratio", [1e-9, 0.001, 0.5, 0.999, 1 - 1e-9])
def test_an_extreme_ratio_ends_at_once_and_leaves_a_cell_on_either_side(ratio):
    """V-JEPA 2 draws again for ever when no draw can satisfy it."""
    masks = BlockMasking(grid=(2, 3, 2), ratio=ratio, block=3).sample(batch=3, generator=np.random.default_rng(0))
    assert masks.hidden.sum((1, 2, 3)).min() >= 1
    assert masks.visible.sum((1, 2, 3)).min() >= 1


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (2, 8, 8, 9), (1, 8, 8, 8), (3, 8, 8, 8)])
def test_a_map_on_another_grid_or_batch_is_refused_with_both_sizes(shape):
    """nnssl treats a feature map smaller than the mask grid as all visible."""
    masking = BlockMasking(grid=(8, 8, 8))
    with pytest.raises(ShapeError, match=r"\[2, 8, 8, 8\]") as refusal:
        masking.sample(draws=[(0, 0, "a"), (0, 0, "b")], valid=torch.ones(shape, dtype=torch.bool))
    assert str(list(shape)) in str(refusal.value)
    with pytest.raises(ShapeError, match="weights"):
        masking.sample(draws=[(0, 0, "a"), (0, 0, "b")], weights=torch.ones(shape))


def test_masks_of_another_grid_or_ratio_are_noticed_before_they_are_used():
    masks = NestedMasking(grid=(4, 4, 4)).sample(draws=[(0, 0, "a")])
    NestedMasking(grid=(4, 4, 4)).verify(masks)
    for other in (
        NestedMasking(grid=(4, 4, 5)),
        NestedMasking(grid=(4, 4, 4), ratio=0.5),
        NestedMasking(grid=(4, 4, 4), local_ratio=0.5),
        BlockMasking(grid=(4, 4, 4), ratio=0.62),
    ):
        with pytest.raises(MaskError):
            other.verify(masks)
    for name in ("visible", "hidden", "local", "global_only"):
        changed = {**vars(masks), name: getattr(masks, name).clone()}
        changed[name].view(-1)[0] ^= True
        with pytest.raises(MaskError):
            NestedMasking(grid=(4, 4, 4)).verify(type(masks)(**changed))


@pytest.mark.parametrize("masking", MASKINGS)
def test_two_maskings_in_turns_draw_as_they_do_alone_and_leave_global_chance_untouched(masking):
    """SparK, nnssl and AnatoMask keep the mask in a global of the process."""
    a, b = masking(grid=(4, 4, 4)), masking(grid=(8, 2, 3), ratio=0.3, block=2)
    ga, gb = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    turns = [(a.sample(batch=2, generator=ga), b.sample(batch=2, generator=gb)) for _ in range(5)]
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (numpy_state == np.random.get_state()[1]).all()
    ga.manual_seed(1)
    gb.manual_seed(2)
    alone_a = [a.sample(batch=2, generator=ga) for _ in range(5)]
    alone_b = [b.sample(batch=2, generator=gb) for _ in range(5)]
    for (one, other), x, y in zip(turns, alone_a, alone_b, strict=True):
        assert torch.equal(one.hidden, x.hidden)
        assert torch.equal(other.hidden, y.hidden)


@pytest.mark.parametrize("masking", MASKINGS)
def test_neither_constructor_nor_sample_changes_what_it_is_given(masking):
    """A constructor of SparK empties its caller's list."""
    grid, draws = [4, 4, 4], [(0, 0, "a"), (0, 0, "b")]
    valid, weights = torch.rand(2, 4, 4, 4) < 0.8, torch.rand(2, 4, 4, 4)
    before = valid.clone(), weights.clone()
    one = masking(grid=grid, block=2)
    masks = one.sample(draws=draws, valid=valid, weights=weights)
    masks.valid[:] = False
    assert grid == [4, 4, 4]
    assert draws == [(0, 0, "a"), (0, 0, "b")]
    assert torch.equal(valid, before[0])
    assert torch.equal(weights, before[1])
    grid[0] = 1
    assert one.grid == (4, 4, 4)


def test_F9_shares_do_not_fluctuate_where_the_legacy_rule_lets_them():
    for grid in [(3, 3, 3), (9, 9, 9)]:
        generator = np.random.default_rng(0)
        legacy = LegacyRule(grid=grid, block=2 if grid == (3, 3, 3) else 4).sample(batch=200, generator=generator)
        ours = NestedMasking(grid=grid, block=4).sample(batch=200, generator=generator)
        assert len(legacy.hidden.sum((1, 2, 3)).unique()) > 3
        for name in ("visible", "hidden", "local", "global_only"):
            assert len(getattr(ours, name).sum((1, 2, 3)).unique()) == 1, name


@pytest.mark.parametrize("masking", MASKINGS)
@pytest.mark.parametrize("block", [1, 4, "adaptive"])
def test_F10_a_grid_of_one_cell_is_refused_with_grid_block_and_remedy(masking, block):
    with pytest.raises(MaskError, match=rf"\(1, 1, 1\).*block {block}.*Use smaller cells or a larger crop"):
        masking(grid=(1, 1, 1), block=block)


@pytest.mark.parametrize("valid_cells", [0, 1])
def test_a_volume_with_less_than_two_valid_cells_is_refused_by_name(valid_cells):
    valid = torch.zeros(2, 3, 3, 3, dtype=torch.bool)
    valid[0] = True
    valid[1].view(-1)[:valid_cells] = True
    with pytest.raises(MaskError, match=rf"sample 1 on grid \(3, 3, 3\) with block 2 has {valid_cells} valid cell"):
        BlockMasking(grid=(3, 3, 3), block=2).sample(draws=[(0, 0, "a"), (0, 0, "b")], valid=valid)


def test_F11_an_adaptive_block_is_flat_on_a_flat_grid_not_a_single_cell():
    assert BlockMasking(grid=(1, 16, 16), block="adaptive").block_shape == (1, 4, 4)
    assert BlockMasking(grid=(2, 32, 4), block="adaptive").block_shape == (1, 4, 2)
