import sys

import numpy as np
import pytest
from PIL import Image

from wavespark.errors import DependencyError, InputError
from wavespark.pages.planes import PLANES
from wavespark.report import reconstruction_figure
from wavespark.report.examples import read_cases
from wavespark.report.figures import panels


def test_the_picture_for_a_readme_shows_the_case(run, tmp_path):
    path = reconstruction_figure(run / "examples" / "step_00000300.safetensors", tmp_path / "picture.png")
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    assert pixels.shape[1] > 900 and path.stat().st_size < 500_000
    columns = np.array_split(pixels[60:-10], 5, axis=1)
    assert all(c.std() > 15 for c in columns)
    blue = (pixels[..., 2] > pixels[..., 0] + 40).mean(axis=0)
    fifth = len(blue) // 5
    assert blue[fifth : 2 * fifth].mean() > 0.3 and blue[:fifth].mean() < 0.01


def test_a_picture_keeps_the_proportions_of_anisotropic_voxels(tmp_path, make_case, save_examples):
    original = np.random.default_rng(0).normal(size=(1, 40, 40, 10)).astype(np.float32)
    path = save_examples(tmp_path / "step_00000001.safetensors", [make_case(original, 0.5, spacing=[1.0, 1.0, 4.0])])
    with Image.open(reconstruction_figure(path, tmp_path / "picture.png")) as image:
        coronal = np.asarray(image.convert("L"))[
            image.height // 3 + 20 : 2 * image.height // 3 - 4, 10 : image.width // 5 - 10
        ]
    assert (coronal < 250).mean() > 0.95  # a square: 40 mm by 40 mm


def test_a_missing_matplotlib_is_named_with_what_to_type(run, tmp_path, monkeypatch):
    for name in [m for m in sys.modules if m.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(DependencyError, match=r"wavespark\[report\]"):
        reconstruction_figure(run / "examples" / "step_00000300.safetensors", tmp_path / "picture.png")


def test_a_case_that_is_not_there_is_refused(run, tmp_path):
    with pytest.raises(InputError, match="2 case"):
        reconstruction_figure(run / "examples" / "step_00000300.safetensors", tmp_path / "picture.png", case=2)


@pytest.mark.parametrize("fault", ["shape", "flat", "missing", "empty"])
def test_tensors_that_do_not_fit_together_are_a_damaged_example(tmp_path, make_case, save_examples, fault):
    case = make_case(np.ones((1, 16, 16, 16), np.float32), 0.5)
    if fault == "shape":
        case["visible"] = case["visible"][:-1]
    elif fault == "flat":
        case["original"] = case["original"][0]
    elif fault == "missing":
        del case["reconstruction"]
    elif fault == "empty":
        case = {"told": {}}
    path = save_examples(tmp_path / "step_00000001.safetensors", [case])
    with pytest.raises(InputError) as refused:
        read_cases(path)
    assert refused.value.reason == "damaged_example"


def test_the_error_under_a_case_is_that_of_hidden_foreground(run):
    case = read_cases(run / "examples" / "step_00000300.safetensors")[0][0]
    hidden_foreground = np.logical_not(case.visible) & case.foreground
    wrong = case.original.copy()
    wrong[0][~hidden_foreground] += 100.0
    assert case.error(wrong) == 0.0
    wrong[0][hidden_foreground] += 0.25
    assert case.error(wrong) == pytest.approx(0.25, rel=1e-5)


def test_an_error_picture_is_dark_wherever_the_loss_does_not_look(run):
    case = read_cases(run / "examples" / "step_00000300.safetensors")[0][0]
    case.reconstruction[...] = case.original + 1.0
    case.inpainting[...] = case.original - 1.0
    counted = np.logical_not(case.visible) & case.foreground
    for title in ("Error of the reconstruction", "Error of inpainting"):
        panel = next(p for p in panels(case)[0] if p.title == title)
        for plane in PLANES:
            assert np.array_equal(panel.paint(plane, 11), 254 * plane.cut(counted, 11).astype(int))
