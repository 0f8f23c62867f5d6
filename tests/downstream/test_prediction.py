"""A stopped or killed prediction goes on where it was; a modality that was never trained on is refused."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from downstream.labelled import Small, small_finetuning
from wavespark.downstream import Segment, load_model, save_model
from wavespark.downstream.prediction import JOURNAL, predict_store
from wavespark.downstream.saving import TaskModel
from wavespark.engine import load_encoder
from wavespark.errors import SettingsError, TrainingStopped
from wavespark.prepare import Store

KILLED = """
import os, signal, sys
from pathlib import Path
from wavespark.downstream import load_model
from wavespark.downstream.prediction import predict_store
from wavespark.prepare import open_store

def on_progress(done, total, text):
    if done == 2:
        os.kill(os.getpid(), signal.SIGKILL)

model, store, output = map(Path, sys.argv[1:])
predict_store(load_model(model, "cpu"), open_store(store), output, on_progress=on_progress)
"""


def model(folder: Path, small: Small, **provenance: Any) -> TaskModel:
    task = Segment(classes=3, settings=small_finetuning())
    save_model(folder, task, task.build(load_encoder(small.encoder)), {"steps": 0, **provenance})
    return load_model(folder, "cpu")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    predict = Segment.predict

    def noted(self: Segment, network: Any, volume: Any) -> Any:
        seen.append(volume.id)
        return predict(self, network, volume)

    monkeypatch.setattr(Segment, "predict", noted)
    return seen


def test_a_killed_prediction_goes_on_with_the_volumes_that_were_not_done(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = model(tmp_path / "model", small, modalities=["MR"])
    words = [sys.executable, "-c", KILLED, str(tmp_path / "model"), str(small.store.path), str(tmp_path / "out")]
    done = subprocess.run(words, check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL
    first = {p.name: p.read_bytes() for p in (tmp_path / "out").glob("*.nii.gz")}
    assert len(first) == 2
    with (tmp_path / "out" / JOURNAL).open("ab") as file:
        file.write(b'{"id": "half a li')  # what a kill in the middle of a line leaves
    seen, calls = counted(monkeypatch), []
    result = predict_store(found, small.store, tmp_path / "out", on_progress=lambda *call: calls.append(call))
    ids = [v.id for v in small.store]
    assert (result.volumes, result.earlier) == (4, 2)
    assert sorted(seen) == sorted(set(ids) - {name.removesuffix(".nii.gz") for name in first})
    assert [call[:2] for call in calls] == [(0, 2), (1, 2), (2, 2)], "time left is that of the volumes to do"
    predict_store(found, small.store, tmp_path / "whole")
    for name in [*(f"{i}.nii.gz" for i in ids), "predictions.json"]:
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_volume_is_done_again_if_its_file_or_the_model_changed(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, out = model(tmp_path / "model", small), tmp_path / "out"
    predict_store(found, small.store, out)
    seen = counted(monkeypatch)
    predict_store(found, small.store, out)
    assert seen == []
    ids = [v.id for v in small.store]
    (out / f"{ids[1]}.nii.gz").write_bytes(b"half a file")
    (out / f"{ids[2]}.nii.gz").unlink()
    predict_store(found, small.store, out)
    assert seen == ids[1:3]
    seen.clear()
    task = replace(found.task, settings=small_finetuning("run.overlap=0.5"))  # type: ignore[type-var]
    predict_store(TaskModel(task=task, model=found.model, config=found.config), small.store, out)
    assert seen == ids, "another overlap gives other predictions"


def test_a_stop_says_how_much_is_done(small: Small, tmp_path: Path) -> None:
    found = model(tmp_path / "model", small)
    with pytest.raises(TrainingStopped, match="stopped by SIGTERM with 1 of 4 volumes done") as stopped:
        predict_store(found, small.store, tmp_path / "out", should_stop=lambda: "SIGTERM")
    assert stopped.value.exit_code == 75
    assert len((tmp_path / "out" / JOURNAL).read_text().splitlines()) == 1


def test_a_modality_that_was_never_trained_on_is_refused_unless_forced(
    small: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, lines = model(tmp_path / "ct", small, modalities=["CT"]), []
    with pytest.raises(SettingsError, match=r"4 MR volume\(s\), and the model was trained on CT only.*--force"):
        predict_store(found, small.store, tmp_path / "out", log=lines.append)
    result = predict_store(found, small.store, tmp_path / "out", force=True, log=lines.append)
    assert result.volumes == 4 and len(lines) == 1 and "predicting 4 MR volume(s)" in lines[0]
    volumes = list(small.store)
    monkeypatch.setattr(Store, "__iter__", lambda self: iter([replace(volumes[0], modality="CT"), *volumes[1:]]))
    found = model(tmp_path / "mr", small, modalities=["MR"])
    encoder = found.model.encoder  # type: ignore[union-attr]
    monkeypatch.setattr(encoder, "stem_channels", {"MR": 1, "CT": 1})
    lines.clear()
    result = predict_store(found, small.store, tmp_path / "both", log=lines.append)
    assert (result.volumes, result.left_out) == (3, 1)
    assert lines == ["left out: 1 CT volume(s), and the model was trained on MR only; --force predicts them"]


def test_what_a_model_was_trained_on_is_recorded(small: Small, tmp_path: Path) -> None:
    assert model(tmp_path / "model", small, modalities=["CT", "MR"]).modalities == ("CT", "MR")
    assert model(tmp_path / "older", small).modalities == ()
