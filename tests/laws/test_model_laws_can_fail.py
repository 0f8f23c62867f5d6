"""The laws over every model, run against faults planted in the parts that are new: each must notice."""

from dataclasses import replace

import torch

from laws import test_every_model
from laws.faults import the_law_notices
from models import test_pretraining, test_resenc, test_segmentation, test_spark_encoder
from wavespark.models import blocks, densify, encoder, resenc, spark_encoder, unet_pretraining
from wavespark.sparse import (
    VisibleCells,
)
from wavespark.sparse.cells import norm as cell_norm
from wavespark.sparse.cells import strided as cell_strided

EQUAL = test_every_model.test_it_equals_an_independent_dense_network_and_so_do_all_gradients
NO_BIT = test_every_model.test_hidden_voxels_change_no_bit_of_a_feature_nor_of_a_gradient_of_a_weight
RECOMPUTED = test_every_model.test_computing_blocks_again_in_the_backward_pass_changes_no_bit
ALONE = test_every_model.test_a_sample_does_not_depend_on_the_others_of_its_batch
NO_LEAK = test_pretraining.test_hidden_voxels_change_no_prediction_and_distinct_hidden_cells_get_distinct_ones
ZERO = test_pretraining.test_hidden_sites_of_every_densified_map_are_exactly_zero_before_the_mask_token
SCALES, SPARSE = "waveformer_small with finer scales", "isotropic_small with two sparse scales"
DOUBLE = torch.float64


def test_a_norm_over_the_whole_batch_instead_of_each_sample(plant):
    def fault(forward):
        def normed(self, x):
            whole = replace(x.layout, counts=(len(x),), batch_size=1, _cache={})
            return x.with_features(forward(self, VisibleCells(features=x.features, layout=whole)).features)

        return normed

    plant(resenc.SparseInstanceNorm, "forward", fault)
    with the_law_notices():
        EQUAL("resenc_tiny", DOUBLE, True)


def test_a_norm_that_counts_tokens_outside_the_crop(plant):
    plant(cell_norm, "_moments", lambda moments: lambda features, inside: moments(features, inside | True))
    with the_law_notices():
        EQUAL("resenc_tiny", DOUBLE, False)


def test_a_strided_convolution_without_its_halo(plant):
    plant(
        cell_strided.HaloStrided,
        "apply",
        lambda apply: (
            lambda features, weight, stride, count, below, absent, *above: apply(
                features,
                weight,
                stride,
                count,
                below,
                torch.arange(below.numel()).view_as(below)[:, 0].flatten(),
                *above,
            )
        ),
    )
    with the_law_notices():
        EQUAL("resenc_tiny", DOUBLE, False)


def test_a_block_that_forgets_its_shortcut(plant):
    plant(resenc._Block, "_run", lambda run: lambda self, features, x, keep: run(self, 0.5 * features, x, keep))
    with the_law_notices():
        EQUAL("resenc_tiny", DOUBLE, False)


def test_attention_inside_cells_that_sees_tokens_outside_the_crop(plant):
    plant(
        blocks.CellAttention,
        "whole",
        lambda whole: lambda self, tokens, positions, present=None: whole(self, tokens, positions),
    )
    with the_law_notices():
        EQUAL(SCALES, DOUBLE, False)


def test_attention_inside_cells_without_positions(plant):
    plant(
        blocks.CellAttention,
        "whole",
        lambda whole: lambda self, tokens, positions, present=None: whole(self, tokens, 0 * positions, present),
    )
    with the_law_notices():
        EQUAL(SCALES, DOUBLE, True)


def test_stochastic_depth_drawn_inside_what_is_computed_twice(plant):
    draws = torch.Generator().manual_seed(0)

    def fault(run):
        return lambda self, features, x, rotation, keep: run(
            self, features, x, rotation, blocks.kept_samples(x, 0.5, draws)
        )

    plant(blocks.WaveletBlock, "_run", fault)
    with the_law_notices():
        RECOMPUTED("waveformer_tiny")


def test_sparse_convolutions_that_weaken_the_way_up(plant):
    plant(
        spark_encoder.TransposedConv3d,
        "forward",
        lambda forward: lambda self, x, like: (y := forward(self, x, like)).with_features(0.9 * y.features),
    )
    with the_law_notices():
        EQUAL(SPARSE, DOUBLE, True)


def test_an_input_normalised_over_the_batch(plant):
    plant(
        encoder.Encoder, "modality_of", lambda of: lambda self, crop, m: (crop.sub_(crop.mean()), of(self, crop, m))[1]
    )
    with the_law_notices():
        ALONE("resenc_tiny")
    with the_law_notices():
        NO_BIT("isotropic_small", DOUBLE, False)


def test_a_decoder_that_sees_the_voxels_of_hidden_cells(plant):
    plant(unet_pretraining, "_voxels", lambda _: lambda layout, crop: torch.ones_like(crop, dtype=torch.bool))
    with the_law_notices():
        NO_LEAK("waveformer_tiny", "unet")


def test_mask_tokens_before_they_belong(plant):
    plant(
        densify.Densify,
        "spread",
        lambda spread: (
            lambda self, level, layout: (x := spread(self, level, layout)).with_features(x.features + self.mask_token)
        ),
    )
    for decoder in ("light", "unet"):
        with the_law_notices():
            ZERO("waveformer_tiny", decoder)


def test_names_that_are_not_those_of_nnunet(plant):
    plant(
        resenc.ResEnc,
        "nnunet_weights",
        lambda names: lambda self: {k.replace("skip.1", "skip.0"): v for k, v in names(self).items()},
    )
    with torch.device("meta"):
        large = test_resenc.create_model("resenc_l", in_channels=1)
    with the_law_notices():
        test_resenc.test_every_weight_of_the_encoder_has_the_name_and_shape_of_nnunet(large)


def test_a_low_pass_without_the_gain_of_the_transform(plant):
    inverse = test_segmentation.WaveletDecoder._inverse
    plant(
        test_segmentation.WaveletDecoder, "_inverse", lambda _: staticmethod(lambda low, *rest: inverse(low / 2, *rest))
    )
    with the_law_notices():
        test_segmentation.test_the_inverse_transform_of_the_decoder_is_that_of_the_whole_volume()


def test_sparse_voxels_and_cells_that_disagree(plant):
    plant(VisibleCells, "to_sparse", lambda to: lambda self: (s := to(self)).with_features(1.01 * s.features))
    with the_law_notices():
        test_spark_encoder.test_visible_cells_and_sparse_voxels_give_the_same((6, 4), False)
