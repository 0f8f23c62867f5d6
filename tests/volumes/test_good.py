"""Every odd but legal input is read with the right values at the right places."""

import numpy as np
import pytest

from volumes.good import GOOD, Expected
from wavespark.volumes import Volume, read_volumes


def differs(volume: Volume, expected: Expected) -> str:
    """What is wrong, empty if each expected voxel is found at its place in mm with its value and validity."""
    shape = expected.values.shape
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = index @ expected.affine[:3, :3].T + expected.affine[:3, 3]
    inverse = np.linalg.inv(volume.affine)
    exact = mm @ inverse[:3, :3].T + inverse[:3, 3]
    found = np.rint(exact).astype(int)
    back = found @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    if np.abs(back - mm).max() > 0.01:
        return f"places are {np.abs(back - mm).max():.3f} mm off"
    if volume.voxels.size != expected.values.size or found.min() < 0 or (found.max((0, 1, 2)) >= volume.voxels.shape[1:]).any():
        return f"grid {volume.voxels.shape} instead of {shape}"
    at = tuple(np.moveaxis(found, -1, 0))
    if not np.allclose(volume.voxels[0][at], expected.values, rtol=1e-6, atol=1e-4):
        return f"values are {np.abs(volume.voxels[0][at] - expected.values).max()} off"
    invalid = np.zeros(shape, bool) if volume.valid is None else ~volume.valid[at]
    if not np.array_equal(invalid, np.zeros(shape, bool) if expected.invalid is None else expected.invalid):
        return "what the scanner padded is marked wrongly"
    return ""


@pytest.mark.parametrize("name", GOOD)
def test_an_odd_but_legal_input_is_read_right(name, tmp_path):
    case = GOOD[name]
    expected = case.write(tmp_path / "in")
    expected = expected if isinstance(expected, list) else [expected]
    found = read_volumes(tmp_path / "in", settings=case.settings)
    assert [r.reason for r in found.refused] == []
    assert len(found.volumes) == len(expected)
    for want in expected:
        wrong = [differs(volume, want) for volume in found.volumes]
        assert "" in wrong, wrong
        volume = found.volumes[wrong.index("")]
        assert volume.modality == want.modality
        assert set(volume.notes) == want.notes


def test_the_corpus_is_as_large_as_promised():
    assert len(GOOD) >= 30
