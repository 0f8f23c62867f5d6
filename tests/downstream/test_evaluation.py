"""Predictions that were exchanged or damaged are refused in a sentence, and name no file outside of their folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wavespark.downstream.evaluation import read_predictions
from wavespark.errors import SettingsError

SEGMENT = {"kind": "segment", "classes": 2}
CLASSIFY = {"kind": "classify", "names": ["a", "b"], "exclusive": False, "prior": [0.5, 0.5]}
DETECT = {"kind": "detect", "sigma_mm": 2.0, "apart_mm": 6.0}


def written(folder: Path, task: dict[str, Any], **row: Any) -> Path:
    document = {"task": task, "volumes": [{"id": "v", **row}]}
    (folder / "predictions.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_what_was_predicted_is_read_by_task(tmp_path: Path) -> None:
    _, found = read_predictions(written(tmp_path, CLASSIFY, probabilities=[0.25, 0.5]))
    np.testing.assert_array_equal(found["v"], [0.25, 0.5])
    _, found = read_predictions(written(tmp_path, DETECT, points=[{"xyz_mm": [1, 2, 3], "score": 0.5}]))
    np.testing.assert_array_equal(found["v"][0], [[1, 2, 3]])
    _, found = read_predictions(written(tmp_path, DETECT, points=[]))
    assert found["v"][0].shape == (0, 3)
    _, found = read_predictions(written(tmp_path, SEGMENT, file="../../v.nii.gz"))
    assert found["v"] == tmp_path / "v.nii.gz"


@pytest.mark.parametrize(
    ("task", "row"),
    [
        (SEGMENT, {}),
        (SEGMENT, {"file": 3}),
        ({"kind": "segment", "classes": 0}, {"file": "v.nii.gz"}),
        (CLASSIFY, {}),
        (CLASSIFY, {"probabilities": [0.1, 0.2, 0.3]}),
        (CLASSIFY, {"probabilities": ["x", 0.2]}),
        (CLASSIFY, {"probabilities": [float("nan"), 0.2]}),
        (CLASSIFY, {"probabilities": [10**400, 0]}),
        (DETECT, {"points": [{"xyz_mm": [1, 2], "score": 0.5}]}),
        (DETECT, {"points": [{"xyz_mm": [1, 2, 3], "score": [1, 2]}]}),
        (DETECT, {"points": 3}),
    ],
)
def test_a_damaged_prediction_is_refused_in_a_sentence(
    tmp_path: Path, task: dict[str, Any], row: dict[str, Any]
) -> None:
    with pytest.raises(SettingsError, match=r"predictions\.json is damaged: predict again"):
        read_predictions(written(tmp_path, task, **row))
