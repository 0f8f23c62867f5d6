"""Boards: what each is told, with a stand-in for the packages that nobody has to have; nothing is imported that was not asked for."""

import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from wavespark.config.pretrain import RunSettings
from wavespark.engine.watching.boards import open_boards, side_by_side
from wavespark.engine.watching.telemetry import Telemetry
from wavespark.errors import DependencyError

LINE = {"step": 3, "loss": 0.5, "normalised_loss": None, "modality": "MR", "per_modality": {"MR": {"harmonic": 0.25}}}
NUMBERS = {"train/loss": 0.5, "train/per_modality/MR/harmonic": 0.25}


@pytest.fixture
def told(monkeypatch):
    """Puts modules named wandb and mlflow in place, and gives what they were told."""
    calls = []

    def keep(name):
        return lambda *arguments, **named: calls.append((name, arguments, named))

    wandb, mlflow = ModuleType("wandb"), ModuleType("mlflow")

    def init(**named):
        calls.append(("init", (), named))
        return SimpleNamespace(log=keep("log"), finish=keep("finish"))

    wandb.init = init
    for name in ("set_experiment", "start_run", "log_metrics", "end_run"):
        setattr(mlflow, name, keep(name))
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    return calls


def test_weights_and_biases_and_mlflow_hear_every_number_and_see_no_picture(told, tmp_path):
    run = tmp_path / "my-run"
    run.mkdir()
    telemetry = Telemetry(run, 2, RunSettings(tensorboard=False, wandb=True, mlflow=True))
    telemetry.metrics(LINE)
    telemetry.examples(run / "examples", 3)
    telemetry.close()
    by_name = {name: (arguments, named) for name, arguments, named in told}
    assert by_name["init"][1] == {
        "project": "wavespark",
        "name": "my-run",
        "id": "my-run",
        "dir": str(run),
        "resume": "allow",
    }
    assert by_name["log"] == ((NUMBERS,), {"step": 3})
    assert by_name["log_metrics"] == ((NUMBERS,), {"step": 3})
    names = [name for name, _, _ in told]
    assert names == ["init", "set_experiment", "start_run", "log", "log_metrics", "finish", "end_run"]


def test_without_being_asked_for_no_board_is_imported(told, tmp_path):
    assert open_boards(tmp_path, 0, RunSettings(tensorboard=False)) == []
    assert told == []


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_board_that_is_asked_for_and_not_there_is_an_error_with_its_extra(monkeypatch, tmp_path, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DependencyError, match=name):
        open_boards(tmp_path, 0, RunSettings(tensorboard=False, **{name: True}))


def test_other_processes_of_a_run_open_no_board(told, tmp_path):
    Telemetry(tmp_path, -1, RunSettings(wandb=True, mlflow=True), writes=False).metrics(LINE)
    assert told == [] and not list(tmp_path.iterdir())


def test_tensorboard_has_the_numbers_and_the_pictures_of_the_held_out_crops(tmp_path):
    loading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    (tmp_path / "examples").mkdir()
    crop = torch.rand(1, 8, 6, 4)
    tensors = {"original_0": crop, "visible_0": (crop[0] > 0.5).float(), "reconstruction_0": crop + 0.1}
    save_file(tensors, tmp_path / "examples/step_00000003.safetensors", {"cases": json.dumps([{"modality": "MR"}])})
    telemetry = Telemetry(tmp_path, 2, RunSettings())
    telemetry.metrics(LINE)
    telemetry.examples(tmp_path / "examples", 3)
    telemetry.close()
    events = loading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {tag: events.Scalars(tag)[0].value for tag in events.Tags()["scalars"]} == NUMBERS
    (picture,) = events.Tags()["images"]
    assert picture.startswith("held_out/0 MR original, visible, reconstruction")
    assert (events.Images(picture)[0].width, events.Images(picture)[0].height) == (24, 6)


def test_a_picture_is_original_visible_and_reconstruction_beside_each_other_with_anterior_up():
    crop = torch.arange(24.0).view(1, 4, 3, 2)
    picture = side_by_side(crop, torch.zeros(4, 3, 2), crop)
    assert picture.shape == (1, 3, 12)
    middle = crop[0, :, :, 1]
    low, high = middle.min(), middle.max()
    assert torch.equal(picture[0, :, :4], (middle.T.flip(0) - low) / (high - low))
    assert torch.equal(picture[0, :, 4:8], torch.zeros(3, 4))
    assert torch.equal(picture[0, :, 8:], picture[0, :, :4])
