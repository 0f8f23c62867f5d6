"""Random damage never gives anything but a volume of finite values or our own refusal; and reading stays quick."""

import time

import numpy as np
import pytest

from volumes.good import GOOD
from volumes.written import Series
from wavespark.errors import InputError
from wavespark.volumes import read_volumes

SEEDS = ("nifti", "nifti_plain", "enhanced_compressed", "jpeg_2000", "jpeg_ls", "no_preamble_implicit", "nrrd_gzip_right-anterior-superior",
         "mgz", "minc_1", "deflated", "explicit_little_endian")  # fmt: skip


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """A few bytes flipped, replaced, cut out or put in, mostly in the header."""
    spoiled = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at = int(rng.integers(max(1, len(spoiled) if rng.random() < 0.3 else min(len(spoiled), 1200))))
        match rng.integers(4):
            case 0:
                spoiled[at] ^= 1 << int(rng.integers(8))
            case 1:
                spoiled[at : at + 4] = (b"\xff" * 4, bytes(4), b"\xff\xff\xff\x7f", rng.bytes(4))[rng.integers(4)]
            case 2:
                del spoiled[at : at + int(rng.integers(1, 60))]
            case _:
                spoiled[at:at] = rng.bytes(int(rng.integers(1, 40)))
        if not spoiled:
            break
    return bytes(spoiled)


@pytest.mark.parametrize("name", SEEDS)
def test_random_damage_is_refused_or_harmless(name, tmp_path):
    GOOD[name].write(tmp_path / "in")
    path = sorted((tmp_path / "in").iterdir())[0]
    whole = path.read_bytes()
    rng = np.random.default_rng(list(name.encode()))
    for _ in range(25):
        path.write_bytes(damaged(whole, rng))
        try:
            found = read_volumes(tmp_path / "in")
        except InputError as error:
            assert error.reason
            continue
        for volume in found.volumes:
            assert np.isfinite(volume.voxels).all()
            assert np.isfinite(volume.affine).all()


@pytest.mark.slow
def test_a_raw_series_of_300_slices_is_read_in_one_and_a_half_seconds_of_cpu(tmp_path):
    stored = np.random.default_rng(0).integers(0, 2000, (300, 512, 512), dtype=np.int16)
    Series(stored=stored, step=(0.0, 0.0, 0.6)).write(tmp_path)
    read_volumes(tmp_path)
    start = time.process_time()
    (volume,) = read_volumes(tmp_path).volumes
    assert time.process_time() - start < 1.5
    assert volume.voxels.shape == (1, 512, 512, 300)
