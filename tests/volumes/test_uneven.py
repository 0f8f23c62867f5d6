"""Slices at two distances are refused, or resampled to an even grid where that is asked for."""

import tomllib

import numpy as np
import pytest

from volumes.written import Series, head
from wavespark.volumes import ReadingSettings, read_volumes
from wavespark.volumes.settings import AssumedGeometry

THIN_THEN_THICK = [2.5 * k for k in range(8)] + [17.5 + 5 * k for k in range(1, 8)]


def write(folder, places, **fields):
    """A series whose slices lie at the given mm along its normal."""
    series = Series(stored=head(len(places), 12, 14), **fields)
    normal = np.array(series.step) / np.linalg.norm(series.step)
    series.change = lambda dataset, k: setattr(
        dataset, "ImagePositionPatient", [f"{v:.5f}" for v in np.array(series.origin) + places[k] * normal]
    )
    return series.write(folder), normal


def interpolated(series, places, step):
    """Values [column, row, slice] on an even grid, by numpy."""
    grid = np.arange(0, places[-1] + 1e-6, step)
    stored = series.values.reshape(-1, len(places))
    return np.array([np.interp(grid, places, line) for line in stored]).reshape(*series.values.shape[:2], len(grid))


@pytest.mark.parametrize(
    "placed", [{}, {"row": (0.8, 0.6, 0.0), "column": (-0.48, 0.64, 0.6), "step": (0.36, -0.48, 0.8)}, {"step": (0.0, -0.5, 2.0)}]
)
@pytest.mark.parametrize("places", [THIN_THEN_THICK, THIN_THEN_THICK[::-1], [0, 1, 2, 3, 4, 6.5, 9, 11.5, 14]])
def test_two_slice_distances_are_resampled_along_the_normal(places, placed, tmp_path):
    places = places if places[0] == 0 else [places[0] - p for p in places]
    series, normal = write(tmp_path, places, **placed)
    (refusal,) = read_volumes(tmp_path).refused
    assert refusal.reason == "nonuniform_spacing"
    assert "reading.allow_uneven=true" in refusal.sentence
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(allow_uneven=True)).volumes
    step = places[-1] / (volume.voxels.shape[-1] - 1)
    assert step == pytest.approx(min(np.diff(places)), rel=0.1)
    np.testing.assert_allclose(volume.voxels[0], interpolated(series, places, step), atol=2e-3)
    np.testing.assert_allclose(volume.affine[:3, 2], np.array([-1, -1, 1]) * normal * step, atol=1e-4)
    np.testing.assert_allclose(volume.affine[:3, 3], np.array([-1, -1, 1]) * series.origin, atol=1e-4)
    assert "allow_uneven" in volume.notes
    assert volume.valid is None


def test_slices_on_the_grid_keep_their_values_to_the_bit(tmp_path):
    series, _ = write(tmp_path, THIN_THEN_THICK)
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(allow_uneven=True)).volumes
    on_grid = [round(p / 2.5) for p in THIN_THEN_THICK]
    np.testing.assert_array_equal(volume.voxels[0][:, :, on_grid], series.values)


def test_padding_next_to_an_interpolated_slice_is_not_valid(tmp_path):
    series = Series(stored=head(len(THIN_THEN_THICK)))
    series.stored[-1, :2, :2] = -2000

    def change(dataset, k):
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        dataset.ImagePositionPatient = ["-40", "-60", str(THIN_THEN_THICK[k])]

    series.change = change
    series.write(tmp_path)
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(allow_uneven=True)).volumes
    invalid = ~volume.valid
    assert invalid[:2, :2, -2:].all()
    assert invalid.sum() == 8


def test_a_steady_drift_is_resampled_too(tmp_path):
    places = np.concatenate([[0], np.cumsum(np.repeat([2.5, 2.7], [30, 29]))]).tolist()
    write(tmp_path, places)
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(allow_uneven=True)).volumes
    assert (volume.voxels.shape[-1] - 1) * volume.spacing[2] == pytest.approx(places[-1], abs=1e-3)


def test_an_even_series_is_the_same_with_the_setting(tmp_path):
    Series().write(tmp_path)
    plain, allowed = (read_volumes(tmp_path, settings=ReadingSettings(allow_uneven=flag)).volumes[0] for flag in (False, True))
    assert plain.content == allowed.content
    assert allowed.notes == ()


def test_a_missing_slice_and_a_hole_are_not_taken_for_uneven_slices(tmp_path):
    Series(stored=head(9), skip=(4,)).write(tmp_path / "a")
    write(tmp_path / "b", [0, 1, 2, 3, 4, 5, 30, 31.5, 33], uid="1.2.3")
    found = read_volumes(tmp_path, settings=ReadingSettings(allow_uneven=True))
    assert sorted(r.reason for r in found.refused) == ["missing_slices", "nonuniform_spacing"]


def test_a_resampled_volume_keeps_the_limit_of_voxels(tmp_path):
    write(tmp_path, THIN_THEN_THICK)
    settings = ReadingSettings(allow_uneven=True, max_voxels=12 * 14 * 16)
    assert [r.reason for r in read_volumes(tmp_path, settings=settings).refused] == ["too_large"]


def test_slices_without_a_place_are_read_with_the_setting_that_their_refusal_names(tmp_path):
    series = Series(stored=head(7, 12, 14), change=lambda dataset, k: (
        delattr(dataset, "ImagePositionPatient"), delattr(dataset, "ImageOrientationPatient")
    ))
    series.write(tmp_path)
    (refusal,) = read_volumes(tmp_path).refused
    advice = refusal.sentence.split("'")[1]
    key, text = advice.replace("MM,MM,MM", "0.5,0.6,3.0").split("=", 1)
    assert key == "reading.assume_geometry"
    stated = tomllib.loads(f"value = {text}")["value"]
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(assume_geometry=AssumedGeometry(**stated))).volumes
    assert volume.spacing == pytest.approx((0.5, 0.6, 3.0))
