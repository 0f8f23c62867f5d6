"""Wavelets longer than Haar: whole crops only, and with the shortest of them the Haar network to rounding."""

import pytest
import torch

from laws.kinds import encoder_of
from laws.tiny import crop_of, ragged
from wavespark.errors import ModelError
from wavespark.models import create_model

pytest.importorskip("ptwt")


@pytest.mark.parametrize("size", [(16, 24, 8), (19, 24, 13)])
def test_the_haar_wavelet_through_ptwt_is_the_network_that_exchanges_means(size):
    plain, long = encoder_of("waveformer_tiny"), encoder_of("waveformer_tiny", wavelet="db1")
    crop = crop_of(*size).requires_grad_()
    results = []
    for encoder in (plain, long):
        levels = encoder(crop)
        gradients = torch.autograd.grad(sum(level.pow(3).sum() for level in levels), [crop, *encoder.parameters()])
        results.append([*levels, *gradients])
    for a, b in zip(*results, strict=True):
        assert (a - b).abs().max() <= 1e-9 * max(1, b.abs().max())


@pytest.mark.parametrize("wavelet", ["db2", "sym4", "bior2.2"])
@pytest.mark.parametrize("size", [(16, 24, 8), (19, 24, 13), (1, 1, 1)])
def test_longer_wavelets_run_on_whole_crops_and_differ(wavelet, size):
    encoder = encoder_of("waveformer_tiny", wavelet=wavelet)
    found, haar = encoder(crop_of(*size)), encoder_of("waveformer_tiny")(crop_of(*size))
    assert all(a.shape == b.shape and torch.isfinite(a).all() for a, b in zip(found, haar, strict=True))
    assert (found[0] - haar[0]).abs().max() > 1e-3


def test_they_are_refused_with_the_reason_when_cells_are_hidden():
    encoder, visible = encoder_of("waveformer_tiny", wavelet="db2"), ragged(2, 2, 2)
    hidden = int((~visible).sum())
    with pytest.raises(
        ModelError, match=rf"'db2' reaches over the borders of cells, and {hidden} cell\(s\) are hidden"
    ):
        encoder(crop_of(16, 16, 16), visible)
    encoder(crop_of(16, 16, 16), torch.ones_like(visible))


def test_what_is_no_wavelet_is_refused():
    with pytest.raises(ModelError, match="no wavelet 'cat9'"):
        create_model("waveformer_tiny", wavelet="cat9")
    with pytest.raises(ModelError, match="multi_scale"):
        create_model("waveformer_tiny", wavelet="db2", multi_scale=True)
