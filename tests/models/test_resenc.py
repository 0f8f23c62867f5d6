"""ResEnc is the residual encoder U-Net of nnU-Net: names and shapes as its own package makes them, and weights there and back."""

import json
from pathlib import Path

import pytest
import torch

from laws.kinds import encoder_of
from laws.tiny import crop_of
from wavespark.errors import ModelError
from wavespark.models import ResEnc, create_model, from_nnunet, segmentation_model

NAMES = json.loads((Path(__file__).parents[1] / "goldens/resenc_l_names.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def large():
    with torch.device("meta"):
        return create_model("resenc_l", in_channels=1)


def test_every_weight_of_the_encoder_has_the_name_and_shape_of_nnunet(large):
    found = {f"encoder.{name}": list(t.shape) for name, t in large.nnunet_weights().items()}
    assert found == NAMES["encoder"]
    assert len([name for name in found if name.startswith("encoder.stages.")]) == 440


def test_every_weight_of_the_decoder_has_the_name_and_shape_of_nnunet(large):
    with torch.device("meta"):
        model = segmentation_model(large, 3)
    expected = {name: shape for name, shape in NAMES["decoder"].items() if "all_modules" not in name}
    assert {f"decoder.{name}": list(t.shape) for name, t in model.decoder.state_dict().items()} == expected


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_weights_go_to_the_names_of_nnunet_and_come_back_to_the_bit(modality):
    several = encoder_of("resenc_tiny", stems={"MR": 1, "CT": 3})
    named = {f"encoder.{name}": t for name, t in several.nnunet_weights(modality).items()}
    one = ResEnc(several.settings, {modality: several.stem_channels[modality]}).double().eval()
    one.load_state_dict(from_nnunet({**named, "decoder.seg_layers.0.weight": torch.zeros(1)}))
    crop = crop_of(12, 8, 10, channels=several.stem_channels[modality])
    for a, b in zip(several(crop, modality=modality), one(crop), strict=True):
        assert torch.equal(a, b)


def test_which_stem_must_be_said_where_there_are_several():
    with pytest.raises(ModelError, match=r"CT.*MR"):
        encoder_of("resenc_tiny", stems={"MR": 1, "CT": 3}).nnunet_weights()


def test_fresh_blocks_begin_as_their_shortcut():
    """nnU-Net starts with the last norm of a block at zero."""
    encoder = create_model("resenc_tiny", in_channels=1)
    for stage in encoder.stages:
        for block in stage.blocks:
            assert (block.conv2.norm.weight == 0).all() and (block.conv2.norm.bias == 0).all()
            fan = block.conv1.conv.weight[0].numel()
            assert block.conv1.conv.weight.detach().std() == pytest.approx((2 / (1 + 0.01**2) / fan) ** 0.5, rel=0.1)
