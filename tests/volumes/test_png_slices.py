"""Folders of PNG slices as DeepLesion has them."""

import numpy as np
import pytest

from volumes.written import head
from wavespark.volumes import AssumedGeometry, ReadingSettings, axis_codes, patient_id, read_volumes

Image = pytest.importorskip("PIL.Image")
HU = head() - 1024  # [slice, row, column]
TABLE = 'File_name,Note,Spacing_mm_px_\n000007_01_02_105.png,x,"0.5, 0.7, 2.5"\n000008_01_02_105.png,x,"9, 9, 9"\n'


def write(root, table=TABLE, skip=(), first=103):
    """`Images_png/000007_01_02/NNN.png` and the table beside `Images_png`."""
    folder = root / "Images_png" / "000007_01_02"
    folder.mkdir(parents=True)
    for k, hu in enumerate(HU):
        if k not in skip:
            Image.fromarray((hu.astype(np.int32) + 32768).astype(np.uint16)).save(folder / f"{first + k}.png")
    if table:
        (root / "DL_info.csv").write_text(table)
    return root


def test_a_folder_of_slices_is_a_ct_volume_in_hu_at_its_spacing(tmp_path):
    (volume,) = read_volumes(write(tmp_path), secret=b"key").volumes
    assert volume.modality == "CT"
    np.testing.assert_allclose(volume.spacing, (0.5, 0.7, 2.5))
    assert axis_codes(volume.affine) == "LPS"
    np.testing.assert_array_equal(volume.voxels[0], HU[::-1].T.astype(np.float32))
    assert volume.patient == patient_id(b"key", "000007")
    assert volume.notes == ("no_orientation",)


def test_numbers_order_slices_and_not_names(tmp_path):
    (volume,) = read_volumes(write(tmp_path, first=7)).volumes
    np.testing.assert_array_equal(volume.voxels[0], HU[::-1].T.astype(np.float32))


def test_without_a_table_the_spacing_must_be_assumed(tmp_path):
    write(tmp_path, table=None)
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["bad_spacing"]
    settings = ReadingSettings(assume_geometry=AssumedGeometry(spacing=(1, 2, 3), axes="LPI"))
    (volume,) = read_volumes(tmp_path, settings=settings).volumes
    assert volume.spacing == (1, 2, 3)
    assert "assumed_geometry" in volume.notes


@pytest.mark.parametrize("spacing", ["0, 1, 1", "PLANTED", "1, 1"])
def test_an_impossible_spacing_is_refused(spacing, tmp_path):
    write(tmp_path, table=f'File_name,Spacing_mm_px_\n000007_01_02_105.png,"{spacing}"\n')
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["bad_spacing"]


def test_a_missing_slice_refuses_the_folder_or_is_filled(tmp_path):
    write(tmp_path, skip=(3,))
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["missing_slices"]
    (volume,) = read_volumes(tmp_path, settings=ReadingSettings(allow_gaps=True)).volumes
    np.testing.assert_array_equal(volume.valid[0, 0], [True, True, True, False, True, True, True])


def test_a_damaged_slice_refuses_the_folder(tmp_path):
    path = write(tmp_path) / "Images_png" / "000007_01_02" / "105.png"
    path.write_bytes(path.read_bytes()[:-60])
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["decode_failed"]


def test_ordinary_pictures_are_no_volume(tmp_path):
    for n in range(4):
        Image.fromarray(np.full((5, 5), n, np.uint8)).save(tmp_path / f"{n}.png")
    assert [r.reason for r in read_volumes(tmp_path).refused] == ["no_readable_image"]
