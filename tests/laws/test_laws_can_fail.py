"""A law that cannot fail says nothing: each is run against a fault planted in the code, and must notice it."""

from dataclasses import replace

import torch
import torch.nn.functional as F

from laws import test_attention, test_equality, test_leak, test_sizes, test_wavelets
from laws.faults import the_law_notices
from models import test_waveformer
from wavespark.models import blocks, waveformer
from wavespark.models.blocks import CellAttention, Rotation
from wavespark.models.waveformer import WaveFormer
from wavespark.sparse import (
    CellLayout,
    VisibleCells,
)
from wavespark.sparse.cells import wavelets
from wavespark.sparse.cells.forms import halo as cell_halo
from wavespark.sparse.cells.forms import tuning

SIZE, BORDERED = (24, 24, 24), (19, 24, 13)
DTYPE = torch.float64
SCORES_BY_OFFSET = test_attention.test_the_score_of_two_cells_depends_on_their_offset_alone_and_differs_between_offsets
POSITIONS_DISTINCT = test_attention.test_all_relative_positions_are_distinct
GATHERED_ATTENTION = test_attention.test_attention_over_gathered_cells_is_key_masked_attention_over_all_cells
ZERO_OUTSIDE = test_sizes.test_tokens_without_a_voxel_of_the_crop_are_zero_at_every_level
SAMPLES_APART = test_sizes.test_a_sample_does_not_depend_on_the_others_of_its_batch
SOME_HIDDEN = test_equality.test_with_hidden_cells_it_equals_the_dense_network_times_the_mask_and_so_do_all_gradients
EVERYTHING_VISIBLE = (
    test_equality.test_with_everything_visible_it_equals_an_independent_dense_network_and_so_do_all_gradients
)
NO_GRADIENT = test_leak.test_no_visible_feature_has_a_gradient_with_respect_to_a_hidden_voxel
NO_BIT_CHANGES = test_leak.test_hidden_voxels_change_no_bit_of_a_visible_feature_nor_of_a_gradient_of_a_weight


def test_a_volume_normalised_as_a_whole_before_the_cells_are_cut(plant):
    plant(waveformer, "gather_cells", lambda gather: lambda crop, *rest: gather(crop - crop.mean(), *rest))
    with the_law_notices():
        NO_BIT_CHANGES(DTYPE, False, SIZE, "NaN")
    with the_law_notices():
        NO_GRADIENT(SIZE, DTYPE, "ten times as loud noise")


def test_a_filter_over_the_border_of_a_cell(plant):
    """What a wavelet longer than Haar, or an overlapping stem, does."""
    plant(waveformer, "gather_cells", lambda gather: lambda crop, *rest: gather(F.avg_pool3d(crop, 3, 1, 1), *rest))
    for content in test_leak.CONTENTS:
        with the_law_notices():
            NO_BIT_CHANGES(DTYPE, False, SIZE, content)


def test_a_mask_that_multiplies_everything_instead_of_choosing(plant):
    """Zero times NaN is NaN: a dense encoder times the mask, in which hidden cells take part in the attention's sums."""

    def leaky(attend):
        def with_hidden(q, k, v, layout):
            return attend(q, k, v, layout) + 0 * with_hidden.crop.sum()

        return with_hidden

    plant(blocks, "attend", leaky)
    plant(
        WaveFormer,
        "encode",
        lambda encode: (
            lambda self, crop, *a, **k: (setattr(blocks.attend, "crop", crop), encode(self, crop, *a, **k))[1]
        ),
    )
    with the_law_notices():
        NO_BIT_CHANGES(DTYPE, False, SIZE, "NaN")


def wrap(halo):
    """A halo that takes row 0 where there is no neighbour."""

    def wrapped(self, block, low, high):
        index = halo(self, block, low, high)
        return index.where(index < len(self) * block[0] * block[1] * block[2], 0)

    return wrapped


def test_a_halo_that_wraps_around(plant):
    plant(CellLayout, "_halo", wrap)
    with the_law_notices():
        EVERYTHING_VISIBLE(SIZE, DTYPE)
    with the_law_notices():
        SAMPLES_APART(DTYPE)


def test_neighbours_of_another_sample(plant):
    """A table of cells without a margin: the last cell of a row and the first of the next one are taken for neighbours."""

    def without_margin(_):
        def neighbours(self, reach):
            gd, gh, gw = self.grid
            table = torch.full((self.batch_size * gd * gh * gw,), len(self))
            rows = self.rows_of(self.cells)
            table[rows] = torch.arange(len(self))
            step = torch.arange(-1, 2)
            offset = (step[:, None, None] * gh + step[None, :, None]) * gw + step
            return table[(rows[:, None, None, None] + offset) % len(table)]

        return neighbours

    plant(CellLayout, "_neighbours", without_margin)
    with the_law_notices():
        SOME_HIDDEN(SIZE, DTYPE)
    with the_law_notices():
        SAMPLES_APART(DTYPE)


def test_a_gradient_that_forgets_to_flip_the_kernel(plant):
    plant(torch.Tensor, "flip", lambda flip: lambda self, *dims: self)
    with the_law_notices():
        EVERYTHING_VISIBLE(SIZE, DTYPE)


def test_a_weight_gradient_that_loses_the_last_chunk(plant):
    def shorter(halos):
        return lambda *args, **settings: list(halos(*args, **settings))[:-1]

    plant(tuning, "TUNING", lambda known: replace(known, chunk_bytes=1))
    right = cell_halo._weight_gradient

    def gradient(features, grad, weight, index, groups):
        halos, cell_halo.halos = cell_halo.halos, shorter(cell_halo.halos)
        try:
            return right(features, grad, weight, index, groups)
        finally:
            cell_halo.halos = halos

    plant(cell_halo, "_weight_gradient", lambda _: gradient)
    with the_law_notices():
        SOME_HIDDEN(SIZE, DTYPE)


def test_attention_that_sees_the_padding_of_a_shorter_sample(plant):
    attention = F.scaled_dot_product_attention
    plant(F, "scaled_dot_product_attention", lambda _: lambda q, k, v, attn_mask=None: attention(q, k, v))
    with the_law_notices():
        GATHERED_ATTENTION(test_attention.RAGGED)
    with the_law_notices():
        SAMPLES_APART(DTYPE)


def test_attention_over_the_batch_as_one_sequence(plant):
    def joined(_):
        def attend(q, k, v, layout):
            return F.scaled_dot_product_attention(*(t.transpose(0, 1) for t in (q, k, v))).transpose(0, 1)

        return attend

    plant(blocks, "attend", joined)
    with the_law_notices():
        GATHERED_ATTENTION(test_attention.EVEN)
    with the_law_notices():
        SAMPLES_APART(DTYPE)


def test_positions_of_one_short_wavelength(plant):
    plant(
        Rotation,
        "angles",
        lambda _: lambda self, pairs, dtype: (self.cells_N3.repeat_interleave(pairs, 1) * torch.pi / 2).to(dtype),
    )
    with the_law_notices():
        POSITIONS_DISTINCT(32, 6)
    with the_law_notices():
        SCORES_BY_OFFSET(6)


def test_positions_that_are_absolute(plant):
    plant(Rotation, "turn", lambda turn: lambda self, x: turn(self, x) + self.cells_N3[:, :1, None])
    with the_law_notices():
        SCORES_BY_OFFSET(3)
    with the_law_notices():
        test_attention.test_moving_the_crop_by_whole_cells_does_not_change_the_features()


def test_positions_that_fold_the_axes_together(plant):
    """The published fault: a relative index that many offsets share."""
    plant(
        Rotation,
        "angles",
        lambda angles: (
            lambda self, pairs, dtype: angles(Rotation(cells_N3=self.cells_N3.sum(1, True).expand(-1, 3)), pairs, dtype)
        ),
    )
    with the_law_notices():
        POSITIONS_DISTINCT(32, 6)
    with the_law_notices():
        EVERYTHING_VISIBLE(SIZE, DTYPE)


def test_a_merge_that_drops_two_parities(plant):
    """The published fault: two of the eight are read twice, two never."""

    def six(split):
        def merged(x):
            parts = list(split(x).chunk(8, -1))
            return torch.cat((*parts[:6], *parts[4:6]), -1)

        return merged

    plant(waveformer, "split_blocks", six)
    with the_law_notices():
        test_attention.test_each_of_the_eight_tokens_of_a_merge_reaches_its_own_columns()
    with the_law_notices():
        NO_GRADIENT(SIZE, DTYPE, "ten times as loud noise")


def test_a_merge_that_zeroes_two_parities(plant):
    def six(split):
        return lambda x: torch.cat((*split(x).chunk(8, -1)[:6], *(0 * part for part in split(x).chunk(8, -1)[6:])), -1)

    plant(waveformer, "split_blocks", six)
    with the_law_notices():
        test_attention.test_every_parity_of_every_merge_and_of_the_stem_has_a_gradient_everywhere()


def test_a_low_pass_token_that_is_not_brought_to_the_scale_of_a_token(plant):
    plant(CellAttention, "forward", lambda forward: lambda self, tokens, *rest: forward(self, 8**0.5 * tokens, *rest))
    with the_law_notices():
        EVERYTHING_VISIBLE(SIZE, DTYPE)


def test_a_block_that_touches_the_details(plant):
    plant(
        blocks,
        "scaled",
        lambda scaled: lambda branch, keep: scaled(branch - branch.mean((1, 2, 3), keepdim=True) / 2, keep),
    )
    with the_law_notices():
        test_wavelets.test_a_block_equals_wavelet_attention_on_the_low_pass_token_and_the_inverse_wavelet(4)


def test_a_wavelet_that_mixes_channels(plant):
    """The flaw of the seed: the transform ran over flattened W x C."""
    plant(
        wavelets,
        "haar_dwt",
        lambda dwt: lambda x, levels: dwt(x.flatten(3).unflatten(3, (x.shape[-1], x.shape[3])).transpose(3, 4), levels),
    )
    with the_law_notices():
        test_wavelets.test_permuting_channels_commutes_with_it(1)
    with the_law_notices():
        test_wavelets.test_every_band_equals_pywavelets(1, DTYPE)


def test_a_wavelet_of_the_wrong_gain(plant):
    plant(wavelets, "_hadamard", lambda hadamard: lambda like: hadamard(like) * 1.00001)
    for law in (
        test_wavelets.test_every_band_equals_pywavelets,
        test_wavelets.test_every_band_and_its_gradient_equal_ptwt,
    ):
        with the_law_notices():
            law(2, DTYPE)
    with the_law_notices():
        test_wavelets.test_it_loses_nothing_and_keeps_the_energy(2, DTYPE)


def test_a_wavelet_that_looks_at_the_next_cell(plant):
    plant(wavelets, "haar_dwt", lambda dwt: lambda x, levels: dwt(x + 0.1 * x.roll(1, 0), levels))
    with the_law_notices():
        test_wavelets.test_the_coefficients_of_a_cell_do_not_depend_on_other_cells()


def test_tokens_outside_the_crop_that_are_not_zeroed(plant):
    plant(VisibleCells, "zero_outside", lambda _: lambda self: self)
    with the_law_notices():
        ZERO_OUTSIDE(BORDERED, DTYPE)
    with the_law_notices():
        EVERYTHING_VISIBLE(BORDERED, DTYPE)


def test_a_convolution_that_reads_outside_the_crop(plant):
    """The levels look right, since they are zeroed in the end, and yet the border leaked into them."""

    def careless(conv):
        def convolve(x, *rest):
            inside, CellLayout.inside = CellLayout.inside, lambda self, block: None
            try:
                return conv(x, *rest)
            finally:
                CellLayout.inside = inside

        return convolve

    plant(blocks, "submanifold_conv", careless)
    ZERO_OUTSIDE(BORDERED, DTYPE)
    with the_law_notices():
        EVERYTHING_VISIBLE(BORDERED, DTYPE)


def test_a_weight_that_is_never_drawn(plant):
    plant(waveformer, "initialise", lambda _: lambda module: None)
    torch.use_deterministic_algorithms(True)
    try:
        with the_law_notices():
            test_waveformer.check_fresh_weights_are_all_drawn()
    finally:
        torch.use_deterministic_algorithms(False)


def test_an_idle_stem_that_stays_out_of_the_graph(plant):
    plant(WaveFormer, "_stem", lambda stem: lambda self, *a: (self.eval(), stem(self, *a), self.train())[1])
    with the_law_notices():
        test_waveformer.check_an_idle_stem_has_an_exact_zero_gradient("MR")


def test_every_law_used_here_holds_without_a_fault():
    """The counterpart: they fail for the fault, not by themselves."""
    NO_BIT_CHANGES(DTYPE, False, SIZE, "NaN")
    NO_GRADIENT(SIZE, DTYPE, "ten times as loud noise")
    SAMPLES_APART(DTYPE)
    EVERYTHING_VISIBLE(BORDERED, DTYPE)
    GATHERED_ATTENTION(test_attention.EVEN)
    test_attention.test_each_of_the_eight_tokens_of_a_merge_reaches_its_own_columns()
    test_wavelets.test_the_coefficients_of_a_cell_do_not_depend_on_other_cells()
    test_waveformer.check_an_idle_stem_has_an_exact_zero_gradient("MR")
