"""Every form of an export loads where it should and gives the same numbers."""

import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import wavespark as ws
from engine.small import mr_store, small_settings  # noqa: F401
from wavespark.cli.main import run as command_line
from wavespark.engine import pretrain
from wavespark.engine.encoders.formats import FORMATS, export_as
from wavespark.engine.encoders.load import newest_encoder
from wavespark.errors import CheckpointError, DependencyError
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
        (("--format", "keras"), "no format 'keras'"),
        (("--format", "monai", "--modality", "CT"), "no stem 'CT'"),
        (("--format", "monai", "--crop", "x"), "--crop x"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], sentence: str
) -> None:
    assert call("export", str(run), "--output", str(tmp_path / "x"), *words) == 2
    assert sentence in capsys.readouterr().err
