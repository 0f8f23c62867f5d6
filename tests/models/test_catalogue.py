"""Models by name and by description; descriptions may come from anyone."""

import json
import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import wavespark as ws
from wavespark.errors import ModelError
from wavespark.models import catalogue, describe, from_description, list_models, segmentation_model
from wavespark.models.settings import ALIASES


@pytest.mark.parametrize("name", list_models())
def test_every_model_is_described_in_json_and_made_again_with_the_same_weights(name):
    with torch.device("meta"):
        made = ws.create_model(name, stems={"MR": 1, "CT": 3}, drop_path=0.2)
    again = from_description(json.loads(json.dumps(describe(made))), device="meta")
    assert type(again) is type(made)
    assert (again.settings, again.stem_channels) == (made.settings, made.stem_channels)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in made.state_dict().items()}
    assert next(again.parameters()).is_meta


@pytest.mark.parametrize("name", list_models())
def test_every_model_tells_its_levels_as_timm_does(name):
    with torch.device("meta"):
        encoder = ws.create_model(name, in_channels=1)
    info = encoder.feature_info
    assert [i["num_chs"] for i in info] == list(encoder.channels)
    assert [i["reduction"] for i in info] == list(encoder.strides) == sorted(encoder.strides)
    assert all(encoder.get_submodule(i["module"]) is not None for i in info)
    assert all(edge % stride == 0 for edge in encoder.cell for stride in encoder.strides)
    assert encoder.preparation == {} and encoder.pretrained_decoder == {}


def test_sizes_grow():
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in ws.create_model(f"{kind}_{size}", in_channels=1).parameters())
            for kind, sizes in (("waveformer", ("tiny", "small", "base", "large")), ("resenc", ("tiny", "small", "l")))
            for size in sizes
        ]
    assert counts[:4] == sorted(counts[:4]) and counts[4:] == sorted(counts[4:])


def test_wrong_names_and_settings_are_refused_with_the_nearest():
    with pytest.raises(ModelError, match="did you mean 'waveformer_tiny'"):
        ws.create_model("waveformer_tny")
    with pytest.raises(ModelError, match="has no setting 'depth': did you mean 'depths'"):
        ws.create_model("waveformer_tiny", depth=(1, 1, 1))
    with pytest.raises(ModelError, match="either in_channels"):
        ws.create_model("waveformer_tiny", in_channels=1, stems={"MR": 1})
    with pytest.raises(ModelError, match="has no setting 'features_only'"):
        ws.create_model("waveformer_tiny", features_only=True)
    with pytest.raises(ModelError, match="blocks"):
        ws.create_model("resenc_tiny", blocks=[1, 1])
    with pytest.raises(ModelError, match="at least 1"):
        ws.create_model("resenc_tiny", in_channels=0)


@pytest.mark.parametrize("name", ALIASES)
def test_a_former_name_makes_the_model_of_the_new_one(name):
    assert name not in ws.list_models()
    with torch.device("meta"):
        former, new = ws.create_model(name), ws.create_model(ALIASES[name])
    assert describe(former) == describe(new)
    assert describe(from_description(describe(new) | {"kind": "seed_waveformer"}, "meta")) == describe(new)


GOOD = {"kind": "resenc", "settings": {"channels": [4, 8], "blocks": [1, 1]}, "stems": {"MR": 1}}
HOSTILE = {
    "another kind": {"kind": "os.system"},
    "a kind that is no word": {"kind": ["resenc"]},
    "no settings": {"settings": None},
    "settings that are a list": {"settings": [1]},
    "a million blocks": {"settings": {"channels": [4, 8], "blocks": [10**6, 1]}},
    "blocks of no number": {"settings": {"channels": [4, 8], "blocks": [True, 1]}},
    "a huge channel": {"settings": {"channels": [4, 2**40], "blocks": [1, 1]}},
    "many stages": {"settings": {"channels": [1] * 1000, "blocks": [1] * 1000}},
    "a negative channel": {"settings": {"channels": [4, -8], "blocks": [1, 1]}},
    "a text for a number": {"settings": {"channels": [4, 8], "blocks": [1, 1], "drop_path": "x"}},
    "no finite number": {"settings": {"channels": [4, 8], "blocks": [1, 1], "drop_path": float("nan")}},
    "a setting of another model": {"settings": {"heads": [1, 1]}},
    "no stem": {"stems": {}},
    "a stem with a point": {"stems": {"a.b": 1, "c": 1}},
    "a stem without channels": {"stems": {"MR": 0}},
    "a stem of many channels": {"stems": {"MR": 2**40}},
    "many stems": {"stems": {str(i): 1 for i in range(1000)}},
    "a name that is no text": {"stems": {1: 1}},
    "stems that are a number": {"stems": 7},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_description_is_refused_in_words_before_anything_is_built(case):
    from_description(GOOD, device="meta")
    with pytest.raises(ModelError, match="no description of an encoder"):
        from_description({**GOOD, **HOSTILE[case]}, device="meta")


def test_a_description_without_a_kind_is_of_the_first_version_that_knew_one_only():
    described = describe(ws.create_model("waveformer_tiny"))
    del described["kind"]
    assert from_description(described, device="meta").settings == ws.create_model("waveformer_tiny").settings


def test_the_table_of_sizes_is_true(monkeypatch):
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) M \| ([\d.]+) G \| (\d+) \|$", catalogue.__doc__, re.MULTILINE)
    assert sorted(row[0] for row in rows) == list_models()
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device=None: False)  # it does not know the meta device
    for name, millions, giga, cell in rows:
        with torch.device("meta"):
            encoder = ws.create_model(name, in_channels=1)
        assert f"{sum(p.numel() for p in encoder.parameters()) / 1e6:.2f}" == millions, name
        assert encoder.cell == (int(cell),) * 3
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            encoder(torch.zeros(1, 1, 128, 128, 128, device="meta"))
        assert f"{counter.get_total_flops() / 1e9:.1f}" == giga, name


def test_the_published_network_has_the_published_size():
    """17.17 M parameters at 4 channels in and 4 classes (Hasan et al., 2025), within 5 %."""
    with torch.device("meta"):
        model = segmentation_model(ws.create_model("waveformer_small", in_channels=4), 4)
    assert abs(sum(p.numel() for p in model.parameters()) / 17.17e6 - 1) < 0.05


def test_no_stem_at_all_is_refused():
    with pytest.raises(ModelError, match="at least one stem"):
        ws.create_model("resenc_tiny", stems={})
