"""Checkpoints and exports: whole or not at all, every bit checked, the newest whole one used."""

import json
import shutil

import pytest
import torch

from wavespark.checkpoints import (
    Checkpoint,
    Export,
    checkpoint_folders,
    newest_checkpoint,
    prune,
    read_checkpoint,
    read_export,
    write_checkpoint,
    write_export,
)
from wavespark.checkpoints.format import MANIFEST, manifest
from wavespark.engine import export_run, load_encoder
from wavespark.errors import CheckpointError
from wavespark.models import WaveFormer, WaveFormerSettings, create_model, segmentation_model

FILES = ("model.safetensors", "optimizer.safetensors", "state.json")


def checkpoint(step):
    g = torch.Generator().manual_seed(step)
    return Checkpoint(
        step=step,
        model={"a": torch.randn(3, 4, generator=g), "b": torch.randn(2, 5, generator=g, dtype=torch.float64).T},
        optimizer={"a.exp_avg": torch.randn(3, 4, generator=g), "a.step": torch.tensor(float(step))},
        state={"settings": {"x": [1, 2.5, None]}, "seconds": 1.25},
    )


@pytest.fixture
def folder(tmp_path):
    for step in (2, 10, 100):
        write_checkpoint(tmp_path / "checkpoints", checkpoint(step))
    return tmp_path / "checkpoints"


def flip(path, position=0.5, bit=1):
    content = bytearray(path.read_bytes())
    content[min(int(position * len(content)), len(content) - 1)] ^= bit
    path.write_bytes(content)


def test_a_checkpoint_comes_back_to_the_bit(folder):
    for step in (2, 10, 100):
        found, wanted = read_checkpoint(folder / f"step_{step:08d}"), checkpoint(step)
        assert found.step == step and found.state == wanted.state
        for a, b in ((found.model, wanted.model), (found.optimizer, wanted.optimizer)):
            assert a.keys() == b.keys()
            assert all(torch.equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


def test_checkpoints_are_listed_newest_first_and_half_written_ones_never(folder):
    shutil.copytree(folder / "step_00000100", folder / ".unfinished-step_00000200-1-ab")
    shutil.copytree(folder / "step_00000100", folder / "step_300")
    (folder / "step_00000400").write_text("a file")
    assert [f.name for f in checkpoint_folders(folder)] == ["step_00000100", "step_00000010", "step_00000002"]
    assert newest_checkpoint(folder, pytest.fail).step == 100
    write_checkpoint(folder, checkpoint(101))
    assert not list(folder.glob(".unfinished*"))


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("position", [0.0, 0.3, 1.0])
def test_one_flipped_bit_in_any_file_is_named_and_the_checkpoint_before_is_used(folder, file, position):
    flip(folder / "step_00000100" / file, position)
    said = []
    assert newest_checkpoint(folder, said.append).step == 10
    assert len(said) == 1 and f"step_00000100/{file}" in said[0] and "damaged" in said[0]


@pytest.mark.parametrize("file", [*FILES, MANIFEST])
@pytest.mark.parametrize("how", ["missing", "empty", "half", "folder"])
def test_a_missing_empty_or_half_file_is_named_and_the_checkpoint_before_is_used(folder, file, how):
    path = folder / "step_00000100" / file
    content = path.read_bytes()
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how != "missing":
        path.write_bytes(content[: len(content) // 2] if how == "half" else b"")
    said = []
    assert newest_checkpoint(folder, said.append).step == 10
    assert len(said) == 1 and f"step_00000100/{file}" in said[0]


def test_a_manifest_whose_bits_are_flipped_is_never_believed(folder):
    path = folder / "step_00000100" / MANIFEST
    original = path.read_bytes()
    for position in range(0, len(original), 7):
        for bit in (1, 4, 32):
            content = bytearray(original)
            content[position] ^= bit
            path.write_bytes(content)
            try:
                found = read_checkpoint(folder / "step_00000100")
            except CheckpointError:
                continue
            assert torch.equal(found.model["a"], checkpoint(100).model["a"])


def test_all_damaged_is_a_refusal_and_none_is_none(folder, tmp_path):
    assert newest_checkpoint(tmp_path / "elsewhere", pytest.fail) is None
    for f in checkpoint_folders(folder):
        flip(f / "model.safetensors")
    said = []
    with pytest.raises(CheckpointError, match="all 3 checkpoint"):
        newest_checkpoint(folder, said.append)
    assert len(said) == 3


@pytest.mark.parametrize("content", [b"[1]", b"{}", b"null", b'{"step": "x"}', b"[" * 100_000, b'{"step": 1e999}'])
def test_a_state_that_another_version_wrote_is_refused_in_words(folder, content):
    target = folder / "step_00000100"
    files = {name: (target / name).read_bytes() for name in FILES} | {"state.json": content}
    for name, data in (files | {MANIFEST: manifest(files)}).items():
        (target / name).write_bytes(data)
    with pytest.raises(CheckpointError, match="step_00000100"):
        read_checkpoint(target)


def test_a_checkpoint_of_the_same_step_is_replaced(folder):
    flip(folder / "step_00000100/model.safetensors")
    write_checkpoint(folder, checkpoint(100))
    assert newest_checkpoint(folder, pytest.fail).step == 100


def test_pruning_keeps_the_newest(folder):
    prune(folder, keep=2, step=100)
    assert [f.name for f in checkpoint_folders(folder)] == ["step_00000100", "step_00000010"]
    assert sorted(p.name for p in folder.iterdir()) == ["step_00000010", "step_00000100"]


def test_pruning_never_removes_the_good_ones_in_favour_of_damaged_newer_ones(folder):
    for step in (10, 100):
        flip(folder / f"step_{step:08d}" / "model.safetensors")
    assert newest_checkpoint(folder, lambda text: None).step == 2
    write_checkpoint(folder, checkpoint(4))
    prune(folder, keep=2, step=4)
    assert newest_checkpoint(folder, lambda text: None).step == 4
    assert [f.name for f in checkpoint_folders(folder)][-2:] == ["step_00000004", "step_00000002"]


SETTINGS = WaveFormerSettings(channels=(12, 24), depths=(1, 1), heads=(1, 2), mlp_ratio=2, drop_path=0.1)


@pytest.fixture
def encoder():
    g = torch.Generator().manual_seed(0)
    made = WaveFormer(SETTINGS, {"MR": 1, "CT": 3})
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.1 * torch.randn(p.shape, generator=g))
    return made.eval()


@pytest.fixture
def exported(encoder, tmp_path):
    provenance = {"steps": 5, "volumes": 2, "normalised_loss": 0.9}
    preparation = {"fingerprint": "ab12", "settings": {"spacing_mm": 1.0}}
    path = tmp_path / "out" / "encoder"
    export_run(path, encoder, name="waveformer_tiny", preparation=preparation, provenance=provenance)
    return path


def test_an_export_loaded_again_gives_the_models_features_to_the_bit(encoder, exported):
    before = torch.get_rng_state()
    loaded = load_encoder(exported)
    assert torch.equal(before, torch.get_rng_state())  # nothing was drawn: no fresh weights are made on the way
    crop = torch.randn(2, 3, 9, 8, 13, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for a, b in zip(encoder(crop, modality="CT"), loaded(crop, modality="CT"), strict=True):
            assert (a - b).abs().max() == 0.0
    assert (loaded.settings, loaded.cell, loaded.stem_channels) == (SETTINGS, (4, 4, 4), {"CT": 3, "MR": 1})
    assert loaded.preparation == {"fingerprint": "ab12", "settings": {"spacing_mm": 1.0}}
    assert not loaded.training and all(p.requires_grad for p in loaded.parameters())
    assert all(p.device.type == "cpu" for p in loaded.parameters())


def test_an_export_is_found_through_its_run(exported, tmp_path):
    shutil.copytree(exported, tmp_path / "run/exports/encoder")
    assert load_encoder(tmp_path / "run").settings == SETTINGS


def test_an_export_of_a_run_replaces_an_export_and_nothing_else(encoder, exported, tmp_path):
    export = read_export(exported)
    write_export(exported, export)
    for precious in (tmp_path / "thesis", exported.parent):
        precious.mkdir(exist_ok=True)
        (precious / "chapter.txt").write_text("years")
        with pytest.raises(CheckpointError, match="not replaced"):
            write_export(precious, export)
        assert (precious / "chapter.txt").read_text() == "years"
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="not replaced"):
        write_export(tmp_path / "file", export)
    (exported / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not replaced"):
        write_export(exported, export)


@pytest.mark.parametrize("file", ["model.safetensors", "config.json"])
def test_a_flipped_bit_in_an_export_is_named(exported, file):
    flip(exported / file)
    with pytest.raises(CheckpointError, match=file):
        load_encoder(exported)


def test_wrong_missing_and_extra_weights_are_refused_by_name(exported):
    export = read_export(exported)
    weights = dict(export.weights)
    del weights["stems.MR.bias"]
    weights["stems.CT.bias"] = torch.zeros(13)
    weights["norms.0.weight"] = weights["norms.0.weight"].half()
    weights["not.ours"] = torch.zeros(1)
    write_export(exported, Export(weights=weights, config=export.config))
    with pytest.raises(CheckpointError) as caught:
        load_encoder(exported)
    for name in ("4 weight(s)", "stems.MR.bias", "stems.CT.bias", "norms.0.weight", "not.ours"):
        assert name in str(caught.value)


HOSTILE = {
    "channels": [10**9, 24],
    "depths": [10**9, 1],
    "heads": [0, 1],
    "mlp_ratio": 10**12,
    "drop_path": 2,
    "unknown": 1,
}


@pytest.mark.parametrize("key", HOSTILE)
def test_a_description_that_lies_is_refused_without_taking_memory_or_time(exported, key):
    export = read_export(exported)
    config = json.loads(json.dumps(export.config))
    config["model"]["settings"][key] = HOSTILE[key]
    write_export(exported, Export(weights=export.weights, config=config))
    with pytest.raises(CheckpointError):
        load_encoder(exported)


@pytest.mark.parametrize("stems", [{}, {"MR": -1}, {"MR": 10**12}, {"MR": "x"}, [1], None, {"MR": 2**70}, {"a.b": 1}])
def test_stems_that_lie_are_refused(exported, stems):
    export = read_export(exported)
    write_export(exported, Export(weights=export.weights, config=dict(export.config) | {"stems": {"MR": 1}}))
    files = {name: (exported / name).read_bytes() for name in ("model.safetensors", "config.json")}
    files["config.json"] = json.dumps(dict(export.config) | {"stems": stems}).encode()
    (exported / "config.json").write_bytes(files["config.json"])
    (exported / MANIFEST).write_bytes(manifest(files))
    with pytest.raises(CheckpointError):
        load_encoder(exported)


def test_what_is_no_export_is_refused_with_the_way_out(tmp_path):
    (tmp_path / "file.pt").write_bytes(b"x")
    for path in (tmp_path / "none", tmp_path / "file.pt"):
        with pytest.raises(CheckpointError, match="wavespark export"):
            load_encoder(path)
    with pytest.raises(CheckpointError, match=r"manifest\.json"):
        load_encoder(tmp_path)


def test_a_pretrained_segmentation_decoder_travels_with_its_encoder_and_nothing_else_does(encoder, tmp_path):
    decoder = segmentation_model(encoder, 4).decoder.state_dict()
    encoder.pretrained_decoder = decoder
    path, run = tmp_path / "encoder", {"steps": 5, "volumes": 2, "normalised_loss": 0.9}
    export_run(path, encoder, name="waveformer_tiny", preparation={"fingerprint": "ab", "settings": {}}, provenance=run)
    loaded = load_encoder(path)
    assert loaded.pretrained_decoder.keys() == decoder.keys()
    assert all(torch.equal(t, decoder[name]) for name, t in loaded.pretrained_decoder.items())
    assert loaded.state_dict().keys() == encoder.state_dict().keys()
    export = read_export(path)
    write_export(
        path, Export(weights=export.weights, config={k: v for k, v in export.config.items() if k != "decoder"})
    )
    with pytest.raises(CheckpointError, match=r"decoder\."):
        load_encoder(path)


@pytest.mark.parametrize("name", ["resenc_tiny", "isotropic_small_8"])
def test_every_kind_of_encoder_comes_back_to_the_bit(name, tmp_path):
    made = create_model(name, stems={"MR": 1, "CT": 3}).eval()
    run = {"steps": 5, "volumes": 2, "normalised_loss": 0.9}
    export_run(tmp_path / "e", made, name=name, preparation={"fingerprint": "ab", "settings": {}}, provenance=run)
    loaded, crop = load_encoder(tmp_path / "e"), torch.randn(1, 3, 17, 16, 9)
    with torch.no_grad():
        assert all(
            torch.equal(a, b) for a, b in zip(made(crop, modality="CT"), loaded(crop, modality="CT"), strict=True)
        )
    assert type(loaded) is type(made) and loaded.settings == made.settings
