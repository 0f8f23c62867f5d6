import base64
import struct
import zlib

import numpy as np

from wavespark.pages.png import png
from wavespark.prepare import open_store, prepare
from wavespark.prepare.overview import _tile, axial_slice, histogram, mosaic, mosaic_page


def test_the_mosaic_shows_each_volume_with_the_front_up_and_right_at_the_left(tmp_path):
    import nibabel as nib

    head = np.zeros((40, 40, 20), np.int16)
    head[5:35, 5:35] = 100
    head[25:32, 25:32] = 900  # right, front (RAS)
    (tmp_path / "data").mkdir()
    for i in range(3):
        nib.save(nib.Nifti1Image(head + i, np.diag([4, 4, 4, 1])), tmp_path / "data" / f"{i}_T1w.nii.gz")
    prepare(tmp_path / "data", tmp_path / "store", "native")
    picture = mosaic(open_store(tmp_path / "store"), tile=64)
    assert picture.shape == (128, 128) and picture.dtype == np.uint8
    for row, column in ((0, 0), (0, 1), (1, 0)):
        tile = picture[row * 64 : row * 64 + 64, column * 64 : column * 64 + 64]
        y, x = (float(np.mean(a)) for a in np.nonzero(tile > 200))
        assert x < 30 and y < 30
    assert not picture[64:, 64:].any()
    assert mosaic(open_store(tmp_path / "store"), at_most=1, tile=32).shape == (32, 32)
    page, (volume, *_) = mosaic_page(open_store(tmp_path / "store"), tile=64), open_store(tmp_path / "store")
    assert base64.b64encode(png(_tile(volume, 64))).decode() in page and f"<figcaption>{volume.id} " in page
    assert (
        page.count("<img") == len(open_store(tmp_path / "store"))
        and "<script" not in page
        and "http:" not in page
        and "https:" not in page
    )


def test_shares_add_up_to_one_and_match_numpy(folder, tmp_path):
    prepare(folder, tmp_path / "store")
    volumes = [v for v in open_store(tmp_path / "store") if v.modality == "CT"]
    edges = np.linspace(-1, 1, 9)
    shares = histogram(volumes, edges)
    assert shares.shape == (3, 8) and np.allclose(shares.sum(axis=1), 1)
    (v,) = volumes
    inside = v.read_foreground()[:, :, v.size[2] // 2]
    assert np.allclose(shares[0], np.histogram(axial_slice(v)[inside], edges)[0] / inside.sum())


def test_a_png_is_what_its_standard_says():
    grey = np.arange(35, dtype=np.uint8).reshape(5, 7)
    data = png(grey)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(data):
        (length,), kind = struct.unpack(">I", data[at : at + 4]), data[at + 4 : at + 8]
        parts[kind] = data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + parts[kind])
        at += 12 + length
    assert struct.unpack(">2I", parts[b"IHDR"][:8]) == (7, 5)
    lines = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(5, 8)
    assert np.array_equal(lines[:, 1:], grey) and not lines[:, 0].any()
    from matplotlib.image import imread

    path = __import__("io").BytesIO(data)
    assert np.allclose(imread(path, format="png") * 255, grey, atol=0.5)
