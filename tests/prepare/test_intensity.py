import numpy as np
import pytest

from wavespark.errors import VolumeError
from wavespark.prepare.intensity import Encoding, encode_ct, encode_mr, encode_raw
from wavespark.prepare.recipe import CTValues, MRValues, Window


def test_the_same_hu_has_the_same_value_in_every_volume_to_the_bit():
    hu = np.arange(-1200, 3200, dtype=np.float32)
    alone = {}
    for value in (-1000.0, -20.0, 0.0, 37.0, 80.0, 179.75, 1200.0, 3000.0):
        volume = np.full((2, 2, 2), value, np.float32)
        numbers, encoding = encode_ct(volume, CTValues())
        alone[value] = encoding.decode(numbers)[:, 0, 0, 0]
    numbers, encoding = encode_ct(np.tile(hu, (2, 3, 1)), CTValues())
    together = encoding.decode(numbers)
    for value, expected in alone.items():
        if value == int(value):
            assert np.array_equal(together[:, 1, 2, int(value) + 1200], expected)


def test_windows_are_linear_from_minus_one_to_one_and_clipped_at_their_bounds():
    hu = np.arange(-1024, 3072, dtype=np.float32).reshape(1, 1, -1)
    numbers, encoding = encode_ct(hu, CTValues())
    assert numbers.dtype == np.int16
    values = encoding.decode(numbers)
    for channel, (level, width) in enumerate([(40, 80), (80, 200), (600, 2800)]):
        expected = np.clip((hu - level) / (width / 2), -1, 1)
        assert np.abs(values[channel] - expected).max() < 1e-6


def test_one_wide_window_is_one_channel():
    numbers, encoding = encode_ct(
        np.linspace(-2000, 4000, 101, dtype=np.float32).reshape(1, 1, -1),
        CTValues(windows=(Window(width=4095, level=1023.5),)),
    )
    values = encoding.decode(numbers)
    assert values.shape == (1, 1, 1, 101)
    assert (values.min(), values.max()) == (-1, 1)


def test_a_window_too_wide_for_16_bits_at_that_step_takes_a_coarser_step():
    wide = CTValues(windows=(Window(width=100_000, level=10_000),), step_hu=0.25)
    hu = np.linspace(-40_000, 60_000, 1001, dtype=np.float32).reshape(1, 1, -1)
    numbers, encoding = encode_ct(hu, wide)
    assert np.abs(encoding.decode(numbers)[0] - (hu - 10_000) / 50_000).max() < 1e-4


def test_mr_is_a_z_score_of_the_foreground_between_its_percentiles():
    rng = np.random.default_rng(0)
    voxels = rng.normal(300, 50, (20, 20, 20)).astype(np.float32)
    foreground = np.zeros(voxels.shape, bool)
    foreground[5:15, 5:15, 5:15] = True
    voxels[0, 0, 0], voxels[10, 10, 10] = 1e6, 1e5  # outliers outside and inside
    numbers, encoding = encode_mr(voxels, foreground, MRValues())
    values = encoding.decode(numbers)[0]
    low, high = np.percentile(voxels[foreground], [0.5, 99.5])
    clipped = np.clip(voxels, low, high)
    expected = (clipped - clipped[foreground].mean()) / clipped[foreground].std()
    assert np.abs(values - expected).max() <= 0.51 * (high - low) / 4095 / clipped[foreground].std()
    assert abs(values[foreground].mean()) < 1e-3
    assert abs(values[foreground].std() - 1) < 1e-3


def test_mr_does_not_depend_on_the_scale_of_the_scanner():
    voxels = np.random.default_rng(0).gamma(3, 100, (12, 12, 12)).astype(np.float32)
    foreground = np.ones(voxels.shape, bool)
    a, b = (Encoding.decode(e, n) for n, e in (encode_mr(v, foreground, MRValues()) for v in (voxels, voxels * 8)))
    assert np.abs(a - b).max() < 1e-4


def test_a_constant_foreground_is_refused():
    with pytest.raises(VolumeError) as caught:
        encode_mr(np.zeros((4, 4, 4), np.float32), np.ones((4, 4, 4), bool), MRValues())
    assert caught.value.reason == "constant_volume"


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.arange(-1024, 3071), np.int16),
        (np.arange(0, 65536), np.int16),
        (np.arange(40_000, 90_000), np.int16),
        (np.linspace(0, 1, 1000), np.float32),
        (np.array([0, 1e6]), np.float32),
        (np.array([2.0**25, 2.0**25 + 4]), np.float32),
    ],
)
def test_raw_values_come_back_to_the_bit_in_the_smallest_kind_that_holds_them(values, dtype):
    voxels = np.asarray(values, np.float32).reshape(1, 1, -1)
    numbers, encoding = encode_raw(voxels)
    assert numbers.dtype == dtype
    assert np.array_equal(encoding.decode(numbers)[0], voxels)


def test_an_encoding_comes_back_from_json():
    _, encoding = encode_ct(np.zeros((1, 1, 1), np.float32), CTValues())
    assert Encoding.from_json(encoding.to_json()) == encoding
