"""Formats beside NIfTI and DICOM: read as SimpleITK and nibabel read them, and refused where a header leads elsewhere."""

import bz2
import gzip
import lzma
import struct

import nibabel as nib
import numpy as np
import pytest

from volumes.good import OBLIQUE
from volumes.test_oracles import itk_affine
from volumes.written import Series, head, nifti, nifti_bytes
from wavespark.errors import VolumeError
from wavespark.volumes import read_label_map, read_volumes


def read_one(path):
    found = read_volumes(path)
    assert not found.refused, found.refused
    (volume,) = found.volumes
    return volume


def reasons(path):
    found = read_volumes(path)
    assert not found.volumes
    return [r.reason for r in found.refused]


def itk_image(array):
    sitk = pytest.importorskip("SimpleITK")
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.5, 0.7, 2.5))
    image.SetDirection((0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1))
    image.SetOrigin((3, -4, 5))
    return image


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("ending", ["mha", "mhd", "nhdr"])
@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32, np.float64, np.int32])
def test_what_simpleitk_writes_is_read_as_it_was(kind, ending, compressed, tmp_path):
    sitk = pytest.importorskip("SimpleITK")
    image = itk_image((head() // 8).astype(kind))
    sitk.WriteImage(image, str(tmp_path / f"a.{ending}"), compressed)
    volume = read_one(tmp_path)
    np.testing.assert_allclose(volume.affine, itk_affine(image), atol=1e-6)
    np.testing.assert_array_equal(volume.voxels[0], (head() // 8).T.astype(np.float32))


def metaimage(folder, data=None, **fields):
    """A big-endian MetaImage with a local file of its own values; fields replaced or added."""
    stored = head()
    lines = {
        "ObjectType": "Image", "NDims": "3", "BinaryData": "True", "ElementByteOrderMSB": "True", "Offset": "3 -4 5",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1", "ElementSpacing": "0.5 0.7 2.5", "DimSize": "11 9 7", "ElementType": "MET_SHORT",
    }  # fmt: skip
    lines = {k: v for k, v in ({**lines, **fields, "ElementDataFile": fields.get("ElementDataFile", "LOCAL")}).items() if v}
    text = "".join(f"{k} = {v}\n" for k, v in lines.items()).encode()
    folder.mkdir(exist_ok=True)
    (folder / "a.mha").write_bytes(text + (stored.astype(">i2").tobytes() if data is None else data))
    return stored


def test_a_big_endian_metaimage_lies_where_its_lps_header_says(tmp_path):
    stored = metaimage(tmp_path / "in")
    volume = read_one(tmp_path / "in")
    np.testing.assert_array_equal(volume.voxels[0], stored.T.astype(np.float32))
    np.testing.assert_allclose(volume.affine, [[-0.5, 0, 0, -3], [0, -0.7, 0, 4], [0, 0, 2.5, 5], [0, 0, 0, 1]])


@pytest.mark.parametrize(
    ("fields", "data", "reason"),
    [
        ({"ElementDataFile": "../outside.raw"}, b"", "outside_root"),
        ({"ElementDataFile": "/etc/passwd"}, b"", "outside_root"),
        ({"ElementDataFile": "missing.raw"}, b"", "not_found"),
        ({"ElementDataFile": "LIST"}, b"", "unsupported_format"),
        ({"ElementDataFile": "a%03d.raw 1 7 1"}, b"", "unsupported_format"),
        ({}, bytes(100), "truncated"),
        ({"CompressedData": "True"}, b"nonsense" * 99, "corrupt"),
        ({"DimSize": "11 9 7 3", "NDims": "4", "TransformMatrix": None, "Offset": None, "ElementSpacing": "1 1 1 1"}, b"", "several_volumes"),
        ({"DimSize": "11 9 1"}, b"", "single_slice"),
        ({"DimSize": "11 9"}, b"", "corrupt"),
        ({"DimSize": "9000 9000 9000"}, b"", "too_large"),
        ({"DimSize": "11 PLANTED 7"}, b"", "corrupt"),
        ({"ElementNumberOfChannels": "3"}, b"", "unsupported_dtype"),
        ({"ElementType": "MET_OTHER"}, b"", "unsupported_dtype"),
        ({"ElementSpacing": "0 1 1"}, b"", "bad_affine"),
        ({"HeaderSize": "99999999"}, b"", "corrupt"),
    ],
)
def test_a_bad_metaimage_is_refused_with_its_reason(fields, data, reason, tmp_path):
    (tmp_path / "outside.raw").write_bytes(bytes(5000))
    metaimage(tmp_path / "in", data, **fields)
    assert reasons(tmp_path / "in") == [reason]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_nifti_pair_is_read_as_nibabel_reads_it(ending, tmp_path):
    image = nib.Nifti1Pair(head().T.copy(), OBLIQUE)
    image.header.set_slope_inter(0.5, -3)
    nib.save(image, tmp_path / f"a.img{ending}")
    loaded = nib.load(tmp_path / f"a.img{ending}")
    volume = read_one(tmp_path)
    np.testing.assert_allclose(volume.voxels[0], loaded.get_fdata(), rtol=1e-6)
    np.testing.assert_allclose(volume.affine, loaded.affine)
    assert read_one(tmp_path / f"a.img{ending}").content == read_one(tmp_path / f"a.hdr{ending}").content == volume.content


@pytest.mark.parametrize("kind", [np.int16, np.uint8, np.float32])
@pytest.mark.parametrize("image_class", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage])
@pytest.mark.parametrize("order", ["<", ">"])
def test_an_analyze_pair_is_read_as_nibabel_reads_it(order, image_class, kind, tmp_path):
    array = (head().T // 8).astype(np.dtype(kind).newbyteorder(order))
    header = image_class.header_class(endianness=order)
    header.set_data_dtype(array.dtype)
    header.set_data_shape(array.shape)
    header.set_zooms((0.5, 0.7, 2.5))
    data = bytearray(header.binaryblock)
    if image_class is nib.Spm99AnalyzeImage:
        struct.pack_into(f"{order}f", data, 112, 0.25)
        struct.pack_into(f"{order}5h", data, 253, 4, 5, 3, 0, 0)
    (tmp_path / "a.hdr").write_bytes(data)
    (tmp_path / "a.img").write_bytes(array.tobytes(order="F"))
    volume = read_one(tmp_path)
    scale = 0.25 if image_class is nib.Spm99AnalyzeImage else 1.0
    np.testing.assert_allclose(volume.voxels[0], array.astype(np.float32) * scale)
    reference = nib.spm99analyze.Spm99AnalyzeHeader(bytes(data), check=False).get_best_affine()
    np.testing.assert_allclose(volume.affine, reference)
    assert "no_orientation" in volume.notes
    assert "wrong_extension" not in volume.notes


def test_half_of_a_pair_is_refused_and_says_what_is_missing(tmp_path):
    nib.save(nib.Nifti1Pair(head().T.copy(), OBLIQUE), tmp_path / "a.img")
    (tmp_path / "a.img").rename(tmp_path / "b.img")
    found = read_volumes(tmp_path)
    assert sorted(r.reason for r in found.refused) == ["not_found", "unsupported_format"]
    assert all("missing" in r.sentence for r in found.refused)


def packed(ending, data):
    if ending == "zst":
        return pytest.importorskip("zstandard").ZstdCompressor(write_checksum=True).compress(data)
    return {"bz2": bz2.compress, "xz": lzma.compress, "gz": gzip.compress}[ending](data)


@pytest.mark.parametrize("ending", ["bz2", "xz", "zst", "gz"])
def test_compressed_nifti_is_read_as_the_plain_file(ending, tmp_path):
    (tmp_path / f"a.nii.{ending}").write_bytes(packed(ending, bytes(nifti_bytes())))
    volume = read_one(tmp_path)
    np.testing.assert_array_equal(volume.voxels[0], head().T.astype(np.float32))
    assert volume.notes == ("modality_guessed",)
    assert read_one(tmp_path / f"a.nii.{ending}").content == volume.content


@pytest.mark.parametrize("ending", ["bz2", "xz", "zst", "gz"])
@pytest.mark.parametrize("change", ["cut", "bomb", "flipped"])
def test_a_damaged_compressed_nifti_is_refused(change, ending, tmp_path):
    plain = bytes(nifti_bytes()) + (bytes(3 << 20) if change == "bomb" else b"")
    data = packed(ending, plain)
    if change == "cut":
        data = data[: len(data) // 2]
    elif change == "flipped":
        at = len(data) // 2
        data = data[:at] + bytes([data[at] ^ 0x55, data[at + 1] ^ 0xFF]) + data[at + 2 :]
    (tmp_path / f"a.nii.{ending}").write_bytes(data)
    (reason,) = reasons(tmp_path)
    assert reason in {"cut": ("truncated", "corrupt"), "bomb": ("too_large",), "flipped": ("corrupt", "truncated", "not_nifti", "non_finite")}[change]


def test_bzip2_of_several_streams_is_read_to_its_end(tmp_path):
    data = bytes(nifti_bytes())
    (tmp_path / "a.nii.bz2").write_bytes(bz2.compress(data[:600]) + bz2.compress(data[600:]))
    np.testing.assert_array_equal(read_one(tmp_path).voxels[0], head().T.astype(np.float32))


def test_gzipped_dicom_is_read_like_dicom(tmp_path):
    series = Series(raw=lambda data, k: gzip.compress(data), name="{}.dcm.gz".format).write(tmp_path / "gz")
    plain = Series().write(tmp_path / "plain")
    volume = read_one(tmp_path / "gz")
    assert volume.notes == ()
    assert volume.content == read_one(tmp_path / "plain").content
    assert series.uid == plain.uid


def test_a_gzipped_dicom_bomb_is_stopped(tmp_path):
    Series(stored=head(3), raw=lambda data, k: gzip.compress(data + bytes(80 << 20)), name="{}.dcm.gz".format).write(tmp_path)
    assert reasons(tmp_path) == ["too_large"] * 3


@pytest.mark.parametrize("data", ["raw", "gzip"])
def test_a_detached_nrrd_header_finds_its_data_beside_it_and_nowhere_else(data, tmp_path):
    text = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 11 9 7\nendian: little\nencoding: {data}\nspace: left-posterior-superior\n"
    text += "space directions: (0.5,0,0) (0,0.7,0) (0,0,2.5)\nspace origin: (1,2,3)\ndata file: NAME\n"
    folder = tmp_path / "in"
    folder.mkdir()
    values = head().astype("<i2").tobytes()
    (folder / "a.raw").write_bytes(gzip.compress(values) if data == "gzip" else values)
    (tmp_path / "a.raw").write_bytes((folder / "a.raw").read_bytes())
    (folder / "a.nhdr").write_text(text.replace("NAME", "a.raw"))
    volume = read_one(folder)
    np.testing.assert_array_equal(volume.voxels[0], head().T.astype(np.float32))
    np.testing.assert_allclose(volume.affine[:3, 3], (-1, -2, 3))
    for name in ("../a.raw", str(tmp_path / "a.raw")):
        (folder / "a.nhdr").write_text(text.replace("NAME", name))
        assert reasons(folder) == ["outside_root"]
    (folder / "a.nhdr").write_text(text.replace("NAME", "a%d.raw 1 7 1"))
    assert reasons(folder) == ["unsupported_format"]


def minc_2(path, stored, external=None):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        dimensions, image = file.create_group("minc-2.0/dimensions"), file.create_group("minc-2.0/image/0")
        for name, size, step in zip(("zspace", "yspace", "xspace"), stored.shape, (2.5, 0.7, 0.5), strict=True):
            axis = dimensions.create_dataset(name, data=np.int32(0))
            axis.attrs.update(length=np.int32(size), step=step, start=-10.0, spacing=np.bytes_(b"regular__"))
        if external is None:
            data = image.create_dataset("image", data=stored)
        else:
            data = image.create_dataset("image", stored.shape, stored.dtype, external=[(str(external), 0, stored.nbytes)])
        data.attrs.update(dimorder=np.bytes_(b"zspace,yspace,xspace"), valid_range=np.array([0.0, 4095.0]))
        for name, value in (("image-min", 0.0), ("image-max", 4095.0)):
            image.create_dataset(name, data=np.full(len(stored), value)).attrs["dimorder"] = np.bytes_(b"zspace")


def test_minc_2_is_read_as_nibabel_reads_it(tmp_path):
    minc_2(tmp_path / "a.mnc", head())
    volume = read_one(tmp_path)
    image = nib.load(tmp_path / "a.mnc")
    np.testing.assert_allclose(volume.voxels[0], np.asarray(image.dataobj).astype(np.float32), atol=1e-3)
    np.testing.assert_allclose(volume.affine, image.affine)


def test_a_minc_2_whose_numbers_lie_in_another_file_is_refused(tmp_path):
    (tmp_path / "secret.bin").write_bytes(head().tobytes())
    (tmp_path / "in").mkdir()
    minc_2(tmp_path / "in" / "a.mnc", head(), external=tmp_path / "secret.bin")
    assert reasons(tmp_path / "in") == ["outside_root"]
    h5py = pytest.importorskip("h5py")
    minc_2(tmp_path / "b.mnc", head())
    with h5py.File(tmp_path / "in" / "a.mnc", "w") as file:
        file["minc-2.0"] = h5py.ExternalLink(str(tmp_path / "b.mnc"), "/minc-2.0")
    assert reasons(tmp_path / "in") == ["outside_root"]


def test_four_dimensions_and_a_single_slice_have_reasons_of_their_own(tmp_path):
    nib.save(nifti(np.stack([head()] * 3, axis=-1)), tmp_path / "a.nii")
    nib.save(nifti(head()[:, :, :1]), tmp_path / "b.nii")
    found = read_volumes(tmp_path)
    assert sorted(r.reason for r in found.refused) == ["several_volumes", "single_slice"]
    assert any("7 x 9 x 11 x 3" in r.sentence for r in found.refused)


def test_a_label_map_may_be_a_metaimage_or_an_analyze_pair(tmp_path):
    metaimage(tmp_path)
    values, _ = read_label_map(bytes(tmp_path / "a.mha"))
    np.testing.assert_array_equal(values, head().T)
    with pytest.raises(VolumeError):
        read_label_map(bytes(tmp_path / "missing.hdr"))


@pytest.mark.parametrize(("sform", "note"), [(np.zeros((3, 4)), "sform_ignored"), (np.full((3, 4), np.nan), "sform_ignored"), (None, None)])
def test_a_qform_stands_in_for_an_empty_sform(sform, note, tmp_path):
    image = nifti(affine=OBLIQUE)
    image.set_qform(OBLIQUE, 1)
    data = bytearray(image.to_bytes())
    if sform is not None:
        struct.pack_into("<12f", data, 280, *sform.ravel())
    (tmp_path / "a.nii").write_bytes(data)
    volume = read_one(tmp_path)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    assert set(volume.notes) == {"modality_guessed"} | ({note} if note else set())


def test_a_sform_of_other_handedness_than_the_qform_wins_with_a_note(tmp_path):
    image = nifti(affine=OBLIQUE)
    mirrored = np.diag([-1.0, 1, 1, 1]) @ OBLIQUE
    image.set_qform(mirrored, 1)
    nib.save(image, tmp_path / "a.nii")
    volume = read_one(tmp_path)
    np.testing.assert_allclose(volume.affine, OBLIQUE, atol=1e-5)
    assert "orientation_conflict" in volume.notes


@pytest.mark.parametrize("excess", [1e-5, 5e-4])
def test_a_quaternion_that_rounding_made_a_little_too_long_is_usable(excess, tmp_path):
    image = nib.Nifti1Image(head().T.copy(), None)
    image.set_qform(np.diag([-0.5, 0.7, -2.5, 1.0]), 1)  # a half turn: the stored three numbers alone have length 1
    data = bytearray(image.to_bytes())
    quaternion = np.array(struct.unpack_from("<3f", data, 256))
    struct.pack_into("<3f", data, 256, *(quaternion * np.sqrt(1 + excess)))
    (tmp_path / "a.nii").write_bytes(data)
    np.testing.assert_allclose(read_one(tmp_path).affine, np.diag([-0.5, 0.7, -2.5, 1.0]), atol=1e-4)
