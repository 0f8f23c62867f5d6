"""Encoders with dense decoders: sizes, gradients, the inverse wavelet, pre-trained decoders."""

import pytest
import torch

from laws.kinds import NAMES, encoder_of
from laws.tiny import crop_of
from oracles.dense_waveformer import dwt, idwt
from wavespark.errors import ModelError
from wavespark.models import segmentation_model
from wavespark.models.wavelet_decoder import WaveletDecoder
from wavespark.sparse import CellLayout, VisibleCells, haar_dwt


@pytest.mark.parametrize("name", NAMES)
def test_logits_come_at_every_size_and_every_weight_learns(name):
    model = segmentation_model(encoder_of(name, torch.float32), 3).train()
    c = model.encoder.cell[0]
    crop = crop_of(2 * c, c + 1, 2 * c - 1, dtype=torch.float32)
    logits = model(crop)
    assert tuple(logits.shape) == (2, 3, *crop.shape[2:])
    logits.pow(3).mean().backward()
    missing = [key for key, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert missing == []
    asleep = [key for key, p in model.named_parameters() if (p.grad == 0).all()]
    assert all(key.endswith(".bias") or ".seg_layers." in key for key in asleep), asleep
    with torch.no_grad():
        assert model.eval()(crop).shape == logits.shape
        assert model(crop_of(1, 1, 1, batch=1, dtype=torch.float32)).shape == (1, 3, 1, 1, 1)


@pytest.mark.parametrize("name", ["waveformer_tiny", "resenc_tiny", "isotropic_small"])
def test_modalities_have_their_own_way_in_and_idle_ones_an_exact_zero(name):
    model = segmentation_model(encoder_of(name, stems={"MR": 1, "CT": 3}), 2).double().train()
    crop = crop_of(16, 12, 18, channels=3)
    logits = model(crop, "CT")
    logits.pow(3).sum().backward()
    for key, p in model.named_parameters():
        assert p.grad is not None, key
        if "MR" in key.split("."):
            assert (p.grad == 0).all(), key
    with pytest.raises(ModelError, match="modality="):
        model(crop)


def test_the_inverse_transform_of_the_decoder_is_that_of_the_whole_volume():
    g = torch.Generator().manual_seed(0)
    low = torch.randn(2, 5, 2, 3, 2, generator=g, dtype=torch.float64)
    volume = torch.randn(2, 5, 8, 12, 8, generator=g, dtype=torch.float64)
    cells = VisibleCells.from_dense(volume, torch.ones(2, 2, 3, 2, dtype=torch.bool), cell=4)
    _, details = haar_dwt(cells.features, 2)
    rough, fine = dwt(volume)
    expected = idwt(idwt(low * 8, dwt(rough)[1]), fine)
    found = WaveletDecoder._inverse(low, details, torch.Size((8, 12, 7)))
    assert (found - expected[..., :7]).abs().max() < 1e-12


def test_the_details_are_those_of_the_last_block_of_each_stage():
    encoder, crop = encoder_of("waveformer_tiny"), crop_of(16, 16, 16, batch=1)
    details = []
    layout = CellLayout.of(torch.ones(1, 2, 2, 2, dtype=torch.bool), size=(16, 16, 16), cell=(8, 8, 8))
    levels = encoder.encode(crop, layout, details=details)
    plain = encoder.encode(crop, layout)
    assert all(torch.equal(a.features, b.features) for a, b in zip(levels, plain, strict=True))
    assert [len(d) for d in details] == [2, 1, 0]
    seen = []
    last = encoder.stages[1][-1]
    last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder.encode(crop, layout)
    assert torch.equal(haar_dwt(last.normed(seen[0]).features, 1)[1][0], details[1][0])


def test_deep_supervision_gives_logits_of_every_scale_in_training_only():
    model = segmentation_model(encoder_of("resenc_tiny"), 2, deep_supervision=True, convolutions=2).double()
    crop = crop_of(12, 8, 10)
    found = model.train()(crop)
    assert [tuple(x.shape[2:]) for x in found] == [(12, 8, 10), (6, 4, 5)]
    assert torch.equal(model.eval()(crop), found[0])


def test_settings_that_the_decoder_has_not_are_refused():
    with pytest.raises(ModelError, match="WaveletDecoder has not"):
        segmentation_model(encoder_of("waveformer_tiny"), 2, convolutions=2)
    with pytest.raises(ModelError, match="deep_supervision, convolutions"):
        segmentation_model(encoder_of("resenc_tiny"), 2, conv=2)
    with pytest.raises(ModelError, match="at least 1"):
        segmentation_model(encoder_of("resenc_tiny"), 2, convolutions=0)
    with pytest.raises(ModelError, match="at least 1 class"):
        segmentation_model(encoder_of("resenc_tiny"), 0)


@pytest.mark.parametrize("name", ["waveformer_tiny", "resenc_tiny"])
def test_a_pretrained_decoder_gives_all_but_its_last_layer(name):
    encoder = encoder_of(name, torch.float32)
    pretrained = segmentation_model(encoder_of(name, torch.float32), 2).decoder.state_dict()
    encoder.pretrained_decoder = pretrained
    own = segmentation_model(encoder, 2).decoder.state_dict()
    last = ("out.", "seg_layers.")
    assert all(torch.equal(own[key], pretrained[key]) for key in own if not key.startswith(last))
    assert not any(torch.equal(own[key], pretrained[key]) for key in own if key.startswith(last))
