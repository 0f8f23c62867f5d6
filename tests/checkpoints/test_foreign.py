"""Promise S1: weights that anyone may have made never run code and never take much memory or time; honest ones come in whole, key by key."""

import json
import resource
import struct
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

import wavespark as ws
from wavespark.checkpoints.foreign import read_foreign
from wavespark.cli.main import run as command_line
from wavespark.engine import import_weights, load_encoder
from wavespark.errors import CheckpointError, ModelError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("foreign")


@pytest.fixture(scope="module")
def encoder():
    return ws.create_model("resenc_tiny", in_channels=1)


def test_a_checkpoint_of_nnunets_kind_becomes_an_export_and_every_key_is_accounted_for(encoder, folder):
    weights = {f"module.encoder.{k}": t.half() for k, t in encoder.state_dict().items()}
    weights["module.encoder.stem.convs.0.all_modules.0.weight"] = weights["module.encoder.stem.convs.0.conv.weight"]
    weights["module.decoder.seg_layers.0.weight"] = torch.zeros(3)
    torch.save(
        {"network_weights": weights, "epoch": 3, "optimizer": {"m": torch.zeros(10**6)}, "ema": {"w": torch.zeros(2)}},
        folder / "a.pt",
    )
    found = import_weights(folder / "a.pt", folder / "a", model="resenc_tiny")
    own = encoder.state_dict()
    assert (found.model, found.channels, found.whole, found.found_under) == ("resenc_tiny", 1, True, "network_weights")
    assert len(found.used) == len(own) and not found.missing and not found.other_shapes
    assert found.copies == ("encoder.stem.convs.0.all_modules.0.weight",)
    assert found.unused == ("decoder.seg_layers.0.weight",)
    assert found.elsewhere == ("ema (1)",)
    assert found.found == len(found.used) + len(found.copies) + len(found.unused)
    loaded = load_encoder(folder / "a").state_dict()
    assert all(torch.equal(loaded[k], own[k].half().float()) for k in own)
    assert "not known here" in (folder / "a/README.md").read_text()


def test_weights_that_are_no_whole_encoder_are_kept_and_the_nearest_is_named(encoder, folder):
    weights = dict(encoder.state_dict())
    del weights["stem.convs.0.conv.weight"]
    weights["stem.convs.0.conv.bias"] = torch.zeros(3)
    save_file(weights, folder / "b.safetensors")
    found = import_weights(folder / "b.safetensors", folder / "b")
    assert not found.whole and found.model == "resenc_tiny"
    assert found.missing == ("stem.convs.0.conv.weight",)
    assert found.other_shapes == ("stem.convs.0.conv.bias is (3,), not (16,)",)
    assert load_file(folder / "b/weights.safetensors").keys() == weights.keys()
    with pytest.raises(ModelError, match="resenc_tiny"):
        import_weights(folder / "b.safetensors", folder / "c", model="resnet")


def test_what_is_no_import_is_never_replaced(folder):
    save_file({"x": torch.zeros(2)}, folder / "x.safetensors")
    (folder / "thesis").mkdir()
    (folder / "thesis/chapter.txt").write_text("years")
    with pytest.raises(CheckpointError, match="not replaced"):
        import_weights(folder / "x.safetensors", folder / "thesis", model="resenc_tiny")
    assert (folder / "thesis/chapter.txt").read_text() == "years"


class Runs:
    """Writes a file when it is unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return open, (self.target, "w")


def bomb(path):
    torch.save({"w": torch.zeros(2**28)}, path)
    with zipfile.ZipFile(path) as plain:
        members = {n: plain.read(n) for n in plain.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)


def header(path, document, data=b""):
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def names(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../../../evil", b"x")
        archive.writestr("archive/data.pkl", b"\x80\x02}.")


HOSTILE = {
    "code.pt": lambda p: torch.save({"a": torch.zeros(2), "b": Runs(p.parent / "was-run")}, p),
    "overlap.safetensors": lambda p: header(p, {"a": ENTRY, "b": ENTRY}, b"1234"),
    "old.pth": lambda p: torch.save({"b": Runs(p.parent / "was-run")}, p, _use_new_zipfile_serialization=False),
    "bomb.pt": bomb,
    "beyond.safetensors": lambda p: header(
        p, {"a": ENTRY | {"shape": [10**12], "data_offsets": [0, 4 * 10**12]}}, b"1234"
    ),
    "deep.safetensors": lambda p: header(p, b'{"a":' * 100_000),
    "length.safetensors": lambda p: p.write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "text.pt": lambda p: p.write_bytes(b"hello" * 1000),
    "empty.pt": lambda p: p.write_bytes(b""),
    "list.pt": lambda p: torch.save([torch.zeros(2)], p),
    "nothing.pt": lambda p: torch.save({"epoch": 3}, p),
    "names.pt": names,
    "folder.pt": lambda p: p.mkdir(),
    "missing.pt": lambda p: None,
}
FAST = ("code.pt",)


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in HOSTILE])
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(tmp_path, name):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    HOSTILE[name](tmp_path / name)
    # A process begins with the peak of the one that started it, so only what it adds to both is its own.
    before = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_CHILDREN, resource.RUSAGE_SELF))
    with pytest.raises(CheckpointError) as caught:
        read_foreign(tmp_path / name, scratch)
    assert str(tmp_path / name) in str(caught.value)
    assert not (tmp_path / "was-run").exists()
    assert not list(scratch.iterdir())
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss <= max(before, 2 * 2**20), "more than 2 GiB"


@pytest.mark.parametrize("name", [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in HOSTILE])
def test_the_command_refuses_a_hostile_file_in_one_line_and_leaves_nothing(tmp_path, capfd, name):
    HOSTILE[name](tmp_path / name)
    with pytest.raises(SystemExit) as end:
        command_line(["import", str(tmp_path / name), "--model", "resenc_tiny", "--output", str(tmp_path / "out")])
    said = capfd.readouterr().err.strip().splitlines()
    assert end.value.code == 1 and said[-1].startswith("error: ") and str(tmp_path / name) in said[-1], said
    assert "a bug of wavespark" not in said[-1] and not any("Traceback" in line for line in said)
    assert not (tmp_path / "out").exists() and not (tmp_path / "was-run").exists()
