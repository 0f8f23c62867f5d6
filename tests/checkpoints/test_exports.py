"""Every form of an export loads where it should and gives the same numbers."""

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import wavespark as ws
from engine.small import mr_store, small_settings  # noqa: F401
from wavespark.checkpoints import Export
from wavespark.cli.main import run as command_line
from wavespark.engine import import_weights, pretrain
from wavespark.engine.encoders.formats import FORMATS, export_as
from wavespark.engine.encoders.load import describe_encoder, newest_encoder
from wavespark.errors import CheckpointError, DependencyError, ModelError, ShapeError
from wavespark.models import Encoder
from wavespark.prepare import Store

CROP = (24, 24, 24)


@pytest.fixture(scope="module")
def run(mr_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """Two steps of a small WaveFormer."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    pretrain(small_settings("run.steps=2", "data.crop=[24, 24, 24]"), mr_store, folder)
    return folder


@pytest.fixture(scope="module")
def encoder(run: Path) -> Encoder:
    return newest_encoder(run)[0]


@pytest.fixture(scope="module")
def resenc_run(mr_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    """One step of a ResEnc."""
    folder = tmp_path_factory.mktemp("resenc") / "run"
    words = ("run.steps=1", "model.name=resenc_tiny", "run.held_out_crops=1", "data.batch=1", "data.crop=[32, 32, 32]")
    pretrain(small_settings(*words), mr_store, folder)
    return folder


def crop(channels: int = 1) -> torch.Tensor:
    return torch.randn(1, channels, *CROP, generator=torch.Generator().manual_seed(0))


def same(found: Any, encoder: Encoder, threshold: float = 0.0) -> None:
    with torch.no_grad():
        wanted = encoder(crop(), modality="MR")
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (torch.as_tensor(a) - b).abs().max() <= threshold


def test_every_format_of_the_contract_is_there() -> None:
    assert set(FORMATS) == {"wavespark", "safetensors", "huggingface", "nnunet", "monai", "onnx"}


def test_onnx_gives_the_same_numbers_in_onnxruntime(run: Path, encoder: Encoder, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export_as(run, tmp_path / "encoder.onnx", "onnx", crop=CROP)
    session = runtime.InferenceSession(str(tmp_path / "encoder.onnx"))
    assert [i.name for i in session.get_inputs()] == ["crop"]
    same(session.run(None, {"crop": crop().numpy()}), encoder, 1e-4)


def test_without_the_packages_onnx_says_what_to_type(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wavespark.checkpoints.onnx.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"pip install 'wavespark\[onnx\]'"):
        export_as(run, tmp_path / "encoder.onnx", "onnx")
    assert not list(tmp_path.iterdir())


def test_a_hugging_face_folder_is_read_by_load_encoder(run: Path, encoder: Encoder, tmp_path: Path) -> None:
    export_as(run, tmp_path / "hf", "huggingface")
    loaded = ws.load_encoder(tmp_path / "hf")
    with torch.no_grad():
        same(loaded(crop(), modality="MR"), encoder)
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert config["model_type"] == "wavespark"
    assert loaded.preparation["settings"]["spacing_mm"] == 1.0
    compile((tmp_path / "hf" / "modeling_wavespark.py").read_text(), "modeling", "exec")
    export_as(run, tmp_path / "hf", "huggingface")  # again, in its place
    (tmp_path / "hf" / "mine.txt").touch()
    with pytest.raises(CheckpointError, match="not replaced"):
        export_as(run, tmp_path / "hf", "huggingface")


def test_from_pretrained_of_transformers_reads_the_folder(
    run: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        export_as(run, tmp_path / "hf", "huggingface")
        model = transformers.AutoModel.from_pretrained(tmp_path / "hf", trust_remote_code=True).eval()
        with torch.no_grad():
            same(model(crop(), modality="MR"), encoder)
        model.save_pretrained(tmp_path / "again")
        again = transformers.AutoModel.from_pretrained(tmp_path / "again", trust_remote_code=True).eval()
        with torch.no_grad():
            same(again(crop(), modality="MR"), encoder)


def test_a_resenc_is_written_under_the_names_and_in_the_form_that_nnunet_reads(
    resenc_run: Path, tmp_path: Path
) -> None:
    export_as(resenc_run, tmp_path / "weights.pth", "nnunet")
    found = torch.load(tmp_path / "weights.pth", weights_only=True)
    assert set(found) == {"network_weights", "nnssl_adaptation_plan", "citations"}
    plan, weights = found["nnssl_adaptation_plan"], found["network_weights"]
    assert {
        "architecture_plans",
        "pretrain_plan",
        "pretrain_num_input_channels",
        "recommended_downstream_patchsize",
    } <= set(plan)
    assert plan["pretrain_num_input_channels"] == 1
    assert plan["recommended_downstream_patchsize"] == [32, 32, 32]
    assert plan["pretrain_plan"]["configurations"]["onemmiso"]["spacing"] == [1.0, 1.0, 1.0]
    assert all(name.startswith((plan["key_to_encoder"], plan["key_to_stem"])) for name in weights)
    for key in plan["keys_to_in_proj"]:
        assert f"{key}.weight" in weights
    encoder = newest_encoder(resenc_run)[0]
    for name, tensor in encoder.nnunet_weights().items():
        assert torch.equal(weights[f"encoder.{name}"], tensor)
    assert torch.equal(
        weights["encoder.stem.convs.0.conv.weight"], weights["encoder.stem.convs.0.all_modules.0.weight"]
    )


def test_a_large_resenc_has_exactly_the_names_and_shapes_of_nnunets_encoder() -> None:
    golden = json.loads((Path(__file__).parents[1] / "goldens" / "resenc_l_names.json").read_text())
    with torch.device("meta"):
        weights = ws.create_model("resenc_l", in_channels=1).nnunet_weights()  # type: ignore[operator]
    assert {f"encoder.{n}": list(t.shape) for n, t in weights.items()} == golden["encoder"]


def test_a_waveformer_comes_with_a_trainer_that_nnunet_can_import(
    run: Path, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export_as(run, tmp_path / "plugin", "nnunet")

    class Base:
        def __init__(self, *args: object, **kwargs: object) -> None:
            self.enable_deep_supervision = True

    names = (
        "nnunetv2",
        "nnunetv2.training",
        "nnunetv2.training.nnUNetTrainer",
        "nnunetv2.training.nnUNetTrainer.nnUNetTrainer",
    )
    for name in names:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[names[-1]].nnUNetTrainer = Base  # type: ignore[attr-defined]
    monkeypatch.setenv("WAVESPARK_ENCODER", str(tmp_path / "plugin" / "encoder"))
    module: dict[str, Any] = {}
    exec(compile((tmp_path / "plugin" / "nnUNetTrainerWavespark.py").read_text(), "trainer", "exec"), module)
    trainer = module["nnUNetTrainerWavespark"]
    assert trainer().enable_deep_supervision is False
    network = trainer.build_network_architecture("any", {}, [], 1, 3, False)
    with torch.no_grad():
        assert network(crop()).shape == (1, 3, *CROP)
        same(network.network.encoder.eval()(crop(), modality="MR"), encoder)
    with pytest.raises(ValueError, match="4 input channel"):
        trainer.build_network_architecture("any", {}, [], 4, 3, False)
    with pytest.raises(CheckpointError, match=r"without \.pth"):
        export_as(run, tmp_path / "weights.pth", "nnunet")


def _built(node: Any) -> Any:
    """What `_target_` makes, as MONAI's parser does."""
    arguments = dict(node)
    module, _, name = arguments.pop("_target_").rpartition(".")
    return getattr(__import__(module, fromlist=[name]), name)(**arguments)


def test_a_bundle_builds_the_encoder_and_loads_its_weights(run: Path, encoder: Encoder, tmp_path: Path) -> None:
    export_as(run, tmp_path / "bundle", "monai")
    inference = json.loads((tmp_path / "bundle/configs/inference.json").read_text())
    network = _built(inference["network_def"])
    network.load_state_dict(torch.load(tmp_path / "bundle/models/model.pt", weights_only=True))
    with torch.no_grad():
        same(network.eval()(crop(), modality="MR"), encoder)
    metadata = json.loads((tmp_path / "bundle/configs/metadata.json").read_text())
    assert {"version", "monai_version", "task", "network_data_format", "schema", "changelog"} <= set(metadata)
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 1
    with pytest.raises(CheckpointError, match="is no bundle"):
        export_as(run, run, "monai")


def test_monais_own_parser_reads_the_bundle(run: Path, encoder: Encoder, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = pytest.importorskip("monai.bundle")
        export_as(run, tmp_path / "bundle", "monai")
        parser = bundle.ConfigParser()
        parser.read_config(str(tmp_path / "bundle/configs/inference.json"))
        parser["bundle_root"] = str(tmp_path / "bundle")
        parser["device"] = "cpu"
        network = parser.get_parsed_content("network")
        parser.get_parsed_content("load")
        assert parser.get_parsed_content("inferer").roi_size == [24, 24, 24]
    with torch.no_grad():
        same(network.eval()(crop(), modality="MR"), encoder)


def call(*words: str) -> int:
    """The exit code of a command line."""
    with pytest.raises(SystemExit) as stopped:
        command_line(list(words))
    return int(stopped.value.code or 0)


def test_the_command_line_writes_each_form(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("huggingface", "monai", "nnunet"):
        assert call("export", str(run), "--format", name, "--output", str(tmp_path / name)) == 0
        assert FORMATS[name] in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--format", "keras"), "--format keras is not possible"),
        (("--format", "monai", "--modality", "CT"), "no stem 'CT'"),
        (("--format", "monai", "--crop", "x"), "--crop x"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    assert call("export", str(run), "--output", str(tmp_path / "x"), *words) == 2
    assert sentence in capsys.readouterr().err


STEMS = {"MR": 1, "CT": 3}


@pytest.fixture
def two_stems(monkeypatch: pytest.MonkeyPatch) -> Encoder:
    """An encoder with two stems, given to every export in place of a run's newest one."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        encoder: Any = ws.create_model("waveformer_tiny", stems=STEMS, channels=(12, 24), depths=(1, 1), heads=(1, 2))
    encoder.eval()
    preparation = {"fingerprint": "f", "settings": {"spacing_mm": 1.0}}
    provenance = {"steps": 3, "volumes": 2, "normalised_loss": 1.0, "crop": list(CROP), "hidden_ratio": 0.6}
    config = describe_encoder(encoder, "waveformer_tiny", preparation, provenance)
    newest = encoder, Export(weights=encoder.state_dict(), config=config), 3
    for module in ("formats", "load"):
        monkeypatch.setattr(f"wavespark.engine.encoders.{module}.newest_encoder", lambda *_: newest)
    return encoder


def levels_of(encoder: Encoder, modality: str) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    x = crop(STEMS[modality])
    with torch.no_grad():
        return x, tuple(encoder(x, modality=modality))


def equal(found: Any, wanted: Any, threshold: float = 0.0) -> None:
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (torch.as_tensor(a) - b).abs().max() <= threshold


@pytest.mark.parametrize("modality", STEMS)
def test_a_bundle_of_two_stems_runs_by_its_own_configuration(two_stems: Encoder, tmp_path: Path, modality: str) -> None:
    export_as(tmp_path, tmp_path / "bundle", "monai", modality=modality)
    x, wanted = levels_of(two_stems, modality)
    network = _built(json.loads((tmp_path / "bundle/configs/inference.json").read_text())["network_def"])
    network.load_state_dict(torch.load(tmp_path / "bundle/models/model.pt", weights_only=True))
    with torch.no_grad():
        equal(network.eval()(x), wanted)


@pytest.mark.parametrize("modality", STEMS)
def test_monai_runs_a_bundle_of_two_stems_over_a_volume(two_stems: Encoder, tmp_path: Path, modality: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle = pytest.importorskip("monai.bundle")
        export_as(tmp_path, tmp_path / "bundle", "monai", modality=modality)
        parser = bundle.ConfigParser()
        parser.read_config(str(tmp_path / "bundle/configs/inference.json"))
        parser["bundle_root"] = str(tmp_path / "bundle")
        parser["device"] = "cpu"
        network = parser.get_parsed_content("network")
        parser.get_parsed_content("load")
        inferer = parser.get_parsed_content("inferer")
        x, wanted = levels_of(two_stems, modality)
        with torch.no_grad():
            equal(inferer(x, network.eval()), wanted, 1e-5)
            whole = inferer(torch.nn.functional.pad(x, (0, 24)), network)
    assert whole[0].shape[-3:] == (CROP[0] // 2, CROP[1] // 2, CROP[2])


@pytest.mark.parametrize("modality", STEMS)
def test_transformers_names_the_features_and_chooses_the_stem_by_the_channels(
    two_stems: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers = pytest.importorskip("transformers")
        export_as(tmp_path, tmp_path / "hf", "huggingface")
        model = transformers.AutoModel.from_pretrained(tmp_path / "hf", trust_remote_code=True).eval()
    x, wanted = levels_of(two_stems, modality)
    with torch.no_grad():
        found = model(pixel_values=x)
        equal(found, wanted)
        equal(found.hidden_states, wanted)
        assert torch.equal(found.last_hidden_state, wanted[-1]) and torch.equal(found["last_hidden_state"], wanted[-1])
        assert found.pooler_output.shape == (1, 24)
        assert type(model(pixel_values=x, return_dict=False)) is tuple
        with pytest.raises(ValueError, match="give modality="):
            model(pixel_values=crop(2))


@pytest.mark.parametrize("modality", STEMS)
def test_onnx_of_two_stems_has_the_stem_that_was_named(two_stems: Encoder, tmp_path: Path, modality: str) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    export_as(tmp_path, tmp_path / "encoder.onnx", "onnx", modality=modality, crop=CROP)
    session = runtime.InferenceSession(str(tmp_path / "encoder.onnx"))
    x, wanted = levels_of(two_stems, modality)
    equal(session.run(None, {"crop": x.numpy()}), wanted, 1e-4)


@pytest.mark.parametrize("form", ["wavespark", "safetensors"])
def test_our_own_forms_of_two_stems_load_and_are_imported_whole(two_stems: Encoder, tmp_path: Path, form: str) -> None:
    target = tmp_path / ("x.safetensors" if form == "safetensors" else "x")
    export_as(tmp_path, target, form)
    weights = target if form == "safetensors" else target / "model.safetensors"
    report = import_weights(weights, tmp_path / "imported")
    assert report.whole and dict(report.stems) == STEMS
    for modality in STEMS:
        x, wanted = levels_of(two_stems, modality)
        with torch.no_grad():
            equal(ws.load_encoder(target)(x, modality=modality), wanted)
            loaded = ws.load_encoder(tmp_path / "imported")
            equal(loaded(x, modality=modality), wanted)
    assert loaded.preparation == {"fingerprint": "f", "settings": {"spacing_mm": 1.0}}


@pytest.mark.parametrize(
    ("name", "stems"), [("resenc_tiny", STEMS), ("resenc_tiny", {"any": 2}), ("waveformer_tiny", {"CT": 2})]
)
def test_weights_without_their_description_still_tell_their_stems(
    tmp_path: Path, name: str, stems: dict[str, int]
) -> None:
    encoder: Any = ws.create_model(name, stems=stems)
    save_file(encoder.state_dict(), tmp_path / "alone.safetensors")
    report = import_weights(tmp_path / "alone.safetensors", tmp_path / "out")
    assert (report.model, report.whole, dict(report.stems)) == (name, True, stems)


def test_a_file_of_which_nothing_fits_is_an_error_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_file({"decoder.of.something": torch.zeros(2)}, tmp_path / "w.safetensors")
    assert call("import", str(tmp_path / "w.safetensors"), "--output", str(tmp_path / "out")) == 1
    error = capsys.readouterr().err
    assert "none of its 1 weight(s)" in error and "'decoder.of.something'" in error
    assert not (tmp_path / "out").exists()


def test_another_format_is_named_and_only_other_changes_are_damage(run: Path, tmp_path: Path) -> None:
    export_as(run, tmp_path / "x", "wavespark")
    path = tmp_path / "x" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"format": "wavespark encoder 9", "wavespark": "7.0"}))
    with pytest.raises(
        CheckpointError, match=r"'wavespark encoder 9', written by wavespark '7.0'.*reads 'wavespark enc"
    ):
        ws.load_encoder(tmp_path / "x")
    path.write_text(json.dumps(config | {"cell": [8, 8, 8]}))
    with pytest.raises(CheckpointError, match="damaged or was changed"):
        ws.load_encoder(tmp_path / "x")


def test_a_crop_of_numpy_and_a_modality_in_small_letters_have_an_answer(two_stems: Encoder) -> None:
    with pytest.raises(ShapeError, match=r"numpy\.ndarray"):
        two_stems(crop().numpy())  # type: ignore[arg-type]
    x, wanted = levels_of(two_stems, "MR")
    with torch.no_grad():
        equal(two_stems(x, modality="mr"), wanted)
    with pytest.raises(ModelError, match="no stem for modality 'PET'"):
        two_stems(x, modality="PET")
