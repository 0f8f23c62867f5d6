"""One series folder in, 14 probabilities out, whatever the folder holds."""

import json
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from downstream.labelled import small_finetuning
from wavespark.downstream import save_model
from wavespark.downstream.classify import Classify
from wavespark.downstream.fitting import network_for
from wavespark.errors import SettingsError
from wavespark.models import create_model
from wavespark.prepare import load_recipe
from wavespark.rsna import LABELS, Predictor
from wavespark.samples import synthetic_head, write_dicom
from wavespark.sampling.lateral import Sides

PRIOR = (*(0.02 + 0.01 * k for k in range(13)), 0.4)


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    head = synthetic_head(3, "CTA", shape=(32, 40, 24), spacing=(5.0, 5.0, 6.0), aneurysm="random")
    return write_dicom(head, tmp_path_factory.mktemp("rsna") / "series" / "1.2.3")


def make_model(folder: Path, names: tuple[str, ...] = LABELS) -> Path:
    recipe = load_recipe("head-1mm", ["spacing_mm=5.0"])
    task = Classify(
        names=names, exclusive=False, prior=PRIOR[: len(names)], settings=small_finetuning("data.crop=[32, 32, 32]")
    )
    encoder = create_model("waveformer_tiny", stems={"CT": 3, "MR": 1}, channels=(12, 24), depths=(1, 1), heads=(1, 2))
    encoder.preparation = {"fingerprint": recipe.fingerprint, "settings": recipe.settings}
    save_model(folder, task, network_for(task, encoder, 0), {"steps": 0})
    return folder


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    return Predictor(make_model(tmp_path_factory.mktemp("model") / "model"), "cpu")


def test_a_series_gets_fourteen_probabilities_in_the_order_of_the_challenge(predictor: Predictor, series: Path) -> None:
    found = predictor(series)
    assert found.reason is None
    assert tuple(found.probabilities) == LABELS
    assert len(found.row) == 14
    assert all(0 < p < 1 for p in found.row)
    assert found.row != list(PRIOR)
    assert predictor(series).row == found.row
    assert found.seconds < 17


def _empty(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def _cut(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[:700])


def _noise(folder: Path) -> None:
    for file in folder.iterdir():
        file.write_bytes(np.random.default_rng(0).bytes(5000))


def _one_place(folder: Path) -> None:
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        ds.ImagePositionPatient = ["0", "0", "0"]
        ds.save_as(file)


def _constant(folder: Path) -> None:
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        ds.PixelData = b"\0" * len(ds.PixelData)
        ds.save_as(file)


def _another_body_part(folder: Path) -> None:
    for file in folder.iterdir():
        ds = pydicom.dcmread(file)
        ds.Modality, ds.SOPClassUID = "PT", "1.2.840.10008.5.1.4.1.1.128"
        ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
        ds.save_as(file)


@pytest.mark.parametrize("damage", [_empty, _cut, _noise, _one_place, _constant, _another_body_part])
def test_a_series_that_cannot_be_read_gets_the_prior_and_a_reason(
    predictor: Predictor, series: Path, tmp_path: Path, damage
) -> None:  # type: ignore[no-untyped-def]
    bad = shutil.copytree(series, tmp_path / "series")
    damage(bad)
    found = predictor(bad)
    assert found.reason
    assert found.row == pytest.approx(PRIOR)
    assert "1.2.3" not in found.reason


def test_nothing_at_all_gets_the_prior(predictor: Predictor, tmp_path: Path) -> None:
    for path in (tmp_path / "none", "\0", ""):
        assert predictor(path).row == pytest.approx(PRIOR)


def test_a_series_with_a_gap_is_predicted_all_the_same(predictor: Predictor, series: Path, tmp_path: Path) -> None:
    bad = shutil.copytree(series, tmp_path / "series")
    slices = sorted(bad.iterdir(), key=lambda p: int(pydicom.dcmread(p, stop_before_pixels=True).InstanceNumber))
    slices[9].unlink()
    found = predictor(bad)
    assert found.reason is None
    assert "read_with_gaps" in found.notes


def test_whatever_breaks_inside_is_no_exception(
    predictor: Predictor, series: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error in (RuntimeError("CUDA out of memory"), MemoryError(), RecursionError(), KeyError("DOE^JANE")):

        def broken(*args: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("wavespark.downstream.rsna.make_item", broken)
        found = predictor(series)
        assert found.row == pytest.approx(PRIOR)
        assert found.reason
        assert "DOE" not in found.reason
    monkeypatch.undo()
    monkeypatch.setattr(Classify, "predict", lambda *args: np.full(14, np.nan))
    assert predictor(series).reason == "not_finite"


def test_the_mirrored_head_with_sides_exchanged_is_averaged_in(predictor: Predictor, series: Path) -> None:
    both = Predictor.__new__(Predictor)
    both.__dict__ |= predictor.__dict__ | {"mirrored": True}
    (volume,), _ = predictor._volumes(series)
    straight = np.array(predictor(series).row)
    mean = np.array(both(series).row)
    other = 2 * mean - straight
    assert not np.allclose(other, straight)
    from wavespark.downstream.memory import MemoryVolume
    from wavespark.prepare.item import make_item

    item = make_item(volume, predictor.found.recipe)
    mirrored = MemoryVolume.of(item, volume.modality, None).mirrored()
    np.testing.assert_allclose(
        other, predictor.task.predict(predictor.found.model, mirrored)[Sides.columns(LABELS)], atol=1e-6
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="torch sees no CUDA device"):
        Predictor(make_model(tmp_path / "model"), "cuda")


def test_a_model_of_other_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="14 labels"):
        Predictor(make_model(tmp_path / "model", ("a", "b")))


def test_the_notebook_answers_every_series_of_the_gateway(
    series: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pandas = pytest.importorskip("pandas")
    notebook = json.loads(
        (Path(__file__).parents[2] / "examples" / "rsna_2025_kaggle.ipynb").read_text(encoding="utf-8")
    )
    given: list[object] = []

    class Server:
        def __init__(self, predict: Callable[[str], object]) -> None:
            self.predict = predict

        def run_local_gateway(self) -> None:
            given.extend(self.predict(str(path)) for path in (series, tmp_path / "gone"))

    module = types.ModuleType("kaggle_evaluation.rsna_inference_server")
    module.RSNAInferenceServer = Server  # type: ignore[attr-defined]
    package = types.ModuleType("kaggle_evaluation")
    package.rsna_inference_server = module  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kaggle_evaluation", package)
    monkeypatch.setitem(sys.modules, "kaggle_evaluation.rsna_inference_server", module)
    monkeypatch.setenv("WAVESPARK_WHEELS", str(tmp_path / "no wheels"))
    monkeypatch.setenv("WAVESPARK_MODEL", str(make_model(tmp_path / "model")))
    names: dict[str, object] = {}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), "notebook", "exec"), names)
    assert len(given) == 2
    for frame in given:
        assert isinstance(frame, pandas.DataFrame)
        assert tuple(frame.columns) == LABELS
    assert given[1].iloc[0].tolist() == pytest.approx(PRIOR)  # type: ignore[attr-defined]
