"""What a file is, by its first bytes; extensions only tell what a file claims to be."""

import re
from typing import BinaryIO

from wavespark.errors import VolumeError
from wavespark.volumes.files import Inflated

HEAD = 352
"""Bytes that are enough to tell."""

_EXTENSIONS = {
    b".nii": "nifti", b".nii.gz": "nifti", b".hdr": "nifti", b".nrrd": "nrrd", b".nhdr": "nrrd",
    b".mgh": "mgh", b".mgz": "mgh", b".mgh.gz": "mgh", b".mnc": "minc",
    b".dcm": "dicom", b".dicom": "dicom", b".ima": "dicom", b".dc3": "dicom", b".png": "png",
}  # fmt: skip
_UNSUPPORTED = re.compile(
    rb"\.(mha|mhd|img|analyze|par|rec|v|2dseq|fid|vti|vtk|npy|npz|h5|hdf5|mat|tiff?|jp2|zip|tar|tgz|7z|rar|bz2|xz|zst|"
    rb"pkl|pickle|pt|pth|(dcm|nrrd|mnc|tar)\.gz)$"
)
_ARCHIVES = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_PICTURES = (b"%PDF", b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\x00", b"MM\x00*")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PICKLE_NAMES = (b".pkl", b".pickle", b".pt", b".pth", b".joblib")
_GROUPS_WITHOUT_PREAMBLE = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_NO_IMAGES = re.compile(rb"\.(jpe?g|gif|bmp|txt|json|xml|csv|tsv|html?|pdf)$")


def claimed(name: bytes) -> str | None:
    """The format that the extension claims: a kind, `unsupported`, or None if it claims no image."""
    name = name.lower()
    for extension, kind in sorted(_EXTENSIONS.items(), key=lambda item: -len(item[0])):
        if name.endswith(extension):
            return kind
    return "unsupported" if _UNSUPPORTED.search(name) else None


def is_misnamed(name: bytes, kind: str) -> bool:
    """True if the extension claims another format than the content has."""
    claim = claimed(name)
    return claim != kind if claim else bool(_NO_IMAGES.search(name.lower()))


def is_another_known(head: bytes) -> bool:
    """True for the first bytes of an archive, a picture or a document."""
    return is_archive(head) or head.startswith(_PICTURES)


def is_archive(head: bytes) -> bool:
    """True for zip, tar, 7z, rar, bzip2, xz and zstandard."""
    return head.startswith(_ARCHIVES) or head[257:262] == b"ustar"


def is_pickle_or_code(name: bytes, head: bytes) -> bool:
    """True for files that other programs would execute when they load them."""
    return name.lower().endswith(_PICKLE_NAMES) or head.startswith(_PICKLES)


def sniff(file: BinaryIO) -> tuple[str | None, bytes]:
    """The kind of the content and its first bytes; the position in the file is left at the start.

    The kind is `nifti`, `nrrd`, `mgh`, `minc`, `dicom`, `png` or None; a gzip stream is judged by what is inside.
    """
    head = file.read(HEAD)
    file.seek(0)
    if head[:2] == b"\x1f\x8b":
        try:
            inner = Inflated(file).read(HEAD)
        except VolumeError:
            inner = b""
        file.seek(0)
        kind = _kind(inner)
        return (kind if kind in ("nifti", "mgh") else None), head
    return _kind(head), head


def _kind(head: bytes) -> str | None:
    if head[128:132] == b"DICM":
        return "dicom"
    if head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return "nifti"
    if head[:6] == b"NRRD00":
        return "nrrd"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:4] in (b"CDF\x01", b"CDF\x02") or head[:8] == b"\x89HDF\r\n\x1a\n":
        return "minc"
    if head[:4] == b"\x00\x00\x00\x01" and not any(head[4:18:4]) and any(head[4:20]):
        return "mgh"  # version 1, then four dimensions below 2^24, all big-endian
    return "dicom" if _is_dicom_without_preamble(head) else None


def _is_dicom_without_preamble(head: bytes) -> bool:
    """True if it starts with an element of group 2 or 8: its VR in letters, or a short implicit length."""
    if len(head) < 16 or head[:2] not in _GROUPS_WITHOUT_PREAMBLE:
        return False
    if re.match(rb"[A-Z]{2}", head[4:6]):
        return True
    return head[:2] != b"\x00\x08" and int.from_bytes(head[4:8], "little") <= 256
