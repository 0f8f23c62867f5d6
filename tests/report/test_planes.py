import io

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from PIL import Image

from wavespark.pages.planes import PLANES
from wavespark.pages.png import grey, grey_palette, heat, heat_palette, png, thinned
from wavespark.report.examples import read_cases
from wavespark.report.planes import position, window


@pytest.fixture
def cases(run):
    found, _, _ = read_cases(run / "examples" / "step_00000300.safetensors")
    return found


@pytest.mark.parametrize(
    ("plane", "rows_columns"),
    [(PLANES[0], "PL"), (PLANES[1], "IL"), (PLANES[2], "IP")],
    ids=["axial", "coronal", "sagittal"],
)
def test_planes_are_those_of_nibabel_reoriented_to_the_radiological_convention(plane, rows_columns):
    voxels = np.random.default_rng(0).normal(size=(5, 6, 7))
    image = nib.Nifti1Image(voxels, np.eye(4))
    through = {"axial": "S", "coronal": "A", "sagittal": "R"}[plane.name]
    wanted = axcodes2ornt((rows_columns[0], rows_columns[1], through))
    turned = image.as_reoriented(ornt_transform(io_orientation(image.affine), wanted)).get_fdata()
    for at in range(voxels.shape[plane.axis]):
        assert np.array_equal(plane.cut(voxels, at), turned[:, :, at])


@pytest.mark.parametrize("plane", PLANES, ids=lambda p: p.name)
def test_the_marks_name_the_side_that_lies_there(plane):
    towards = {"R": (0, -1), "L": (0, 0), "A": (1, -1), "P": (1, 0), "S": (2, -1), "I": (2, 0)}
    for letter, where in (
        (plane.left, np.s_[:, 0]),
        (plane.right, np.s_[:, -1]),
        (plane.top, np.s_[0]),
        (plane.bottom, np.s_[-1]),
    ):
        volume = np.zeros((4, 5, 6))
        axis, end = towards[letter]
        np.moveaxis(volume, axis, 0)[end] = 1
        picture = plane.cut(volume, 2)
        assert picture[where].all() and picture.sum() == picture[where].sum()


def test_a_plane_has_the_proportions_of_its_millimetres():
    shape, spacing = (10, 20, 30), (2.0, 0.5, 3.0)
    axial, coronal, sagittal = (p.aspect(shape, spacing) for p in PLANES)
    assert axial == pytest.approx(20 / 10) and coronal == pytest.approx(20 / 90) and sagittal == pytest.approx(10 / 90)


def test_the_slice_is_chosen_by_the_mask_and_not_by_the_result(cases):
    case = cases[0]
    chosen = [position(case, p) for p in PLANES]
    case.reconstruction[...] = np.random.default_rng(0).normal(size=case.reconstruction.shape)
    assert [position(case, p) for p in PLANES] == chosen
    for plane, at in zip(PLANES, chosen, strict=True):
        assert plane.cut(case.scored, at).any() and plane.cut(case.visible & case.foreground, at).any()


def test_pillow_reads_the_png_as_the_palette_says():
    indices = np.random.default_rng(0).integers(0, 256, size=(19, 23), dtype=np.uint8)
    for palette in (grey_palette(), heat_palette()):
        with Image.open(io.BytesIO(png(indices, palette))) as image:
            image.load()
            assert np.array_equal(np.asarray(image.convert("RGB")), palette[indices])


def test_a_long_side_is_thinned_out_to_at_most_256_pixels():
    with Image.open(io.BytesIO(png(thinned(np.zeros((600, 300), np.uint8)), grey_palette()))) as image:
        assert image.size == (100, 200)


def test_greys_follow_the_window_and_hidden_cells_have_a_colour_of_their_own():
    pixels = np.array([[-5.0, 0.0, 1.0, 2.0, 9.0, np.nan, np.inf]])
    assert grey(pixels, (0.0, 2.0)).tolist() == [[0, 0, 127, 254, 254, 0, 254]]
    hidden = np.array([[False] * 6 + [True]])
    assert grey(pixels, (0.0, 2.0), hidden).tolist() == [[0, 0, 127, 254, 254, 0, 255]]
    palette = grey_palette().astype(int)
    assert len(set(palette[255])) == 3 and all(len(set(c)) == 1 for c in palette[:255])


def test_more_error_is_lighter_also_for_those_who_see_no_colours():
    luminance = heat_palette()[:255] @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) >= 0).all() and luminance[0] == 0 and luminance[-1] > 250
    assert heat(np.array([[0.0, 1.0, 2.0, 5.0]]), 2.0).tolist() == [[0, 127, 254, 254]]


def test_the_window_comes_from_the_original_s_foreground_alone(cases):
    case = cases[0]
    limits = window(case)
    case.original[0][~case.foreground] = 1e6
    case.reconstruction[...] = -1e6
    assert window(case) == limits


def test_every_window_of_a_ct_is_shown_in_one_plane(run, make_case, save_examples):
    from wavespark.report import write_report

    original = np.random.default_rng(0).normal(size=(3, 32, 32, 32)).astype(np.float32)
    save_examples(run / "examples" / "step_00000300.safetensors", [make_case(original, 0.9, modality="CT")])
    page = write_report(run).read_text(encoding="utf-8")
    for title in (
        "axial, brain window",
        "coronal, brain window",
        "sagittal, brain window",
        "axial, blood window",
        "axial, bone window",
    ):
        assert f">{title}<" in page
    assert "brain window, blood window, bone window" in page
    images = [part.split('"')[0] for part in page.split('src="data:image/png;base64,')[1:]]
    assert len(images) == 3 + 5 * 6
    assert len(set(images)) >= 5 * 6, "each channel is drawn from its own voxels"
