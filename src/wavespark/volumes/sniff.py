"""File formats by their first bytes; an extension only says what a file claims to be."""

import re

from wavespark.errors import VolumeError
from wavespark.volumes.files import OpenFile
from wavespark.volumes.pairs import is_image_of_pair
from wavespark.volumes.streams import GZIP, is_compressed, plain_reader

HEAD = 352
"""Bytes that are enough to tell."""

_EXTENSIONS = {
    b".nii": "nifti", b".nii.gz": "nifti", b".nii.bz2": "nifti", b".nii.xz": "nifti", b".nii.zst": "nifti",
    b".hdr": "nifti", b".hdr.gz": "nifti", b".nrrd": "nrrd", b".nhdr": "nrrd", b".mha": "metaimage", b".mhd": "metaimage",
    b".mgh": "mgh", b".mgz": "mgh", b".mgh.gz": "mgh", b".mnc": "minc",
    b".dcm": "dicom", b".dicom": "dicom", b".ima": "dicom", b".dc3": "dicom", b".dcm.gz": "dicom", b".png": "png",
}  # fmt: skip
_UNSUPPORTED = re.compile(
    rb"\.(img|analyze|par|rec|v|2dseq|fid|vti|vtk|npy|npz|h5|hdf5|mat|tiff?|jp2|zip|tar|tgz|7z|rar|bz2|xz|zst|"
    rb"pkl|pickle|pt|pth|(img|nrrd|mnc|mha|tar)\.gz|tbz2?|txz)$"
)
_READABLE_ARCHIVES = re.compile(rb"(\.(zip|tar|tgz|tbz2?|txz)|\.tar\.(gz|bz2|xz|zst))$")
_ARCHIVES = (b"PK\x03\x04", b"7z\xbc\xaf\x27\x1c", b"Rar!", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd")
_PICTURES = (b"%PDF", b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\x00", b"MM\x00*")
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_PICKLE_NAMES = (b".pkl", b".pickle", b".pt", b".pth", b".joblib")
_GROUPS_WITHOUT_PREAMBLE = (b"\x02\x00", b"\x08\x00", b"\x00\x08")
_NO_IMAGES = re.compile(rb"\.(jpe?g|gif|bmp|txt|json|xml|csv|tsv|html?|pdf)$")


def claimed(name: bytes) -> str | None:
    """The format that the extension claims: a kind, `unsupported`, or None if it claims no
    image."""
    name = name.lower()
    for extension, kind in sorted(_EXTENSIONS.items(), key=lambda item: -len(item[0])):
        if name.endswith(extension):
            return kind
    return "unsupported" if _UNSUPPORTED.search(name) else None


def is_misnamed(name: bytes, kind: str) -> bool:
    """True if the extension claims another format than the content has."""
    claim = claimed(name)
    if (claim, kind) == ("nifti", "analyze") or is_image_of_pair(name):
        return False
    return claim != kind if claim else bool(_NO_IMAGES.search(name.lower()))


def is_another_known(head: bytes) -> bool:
    """True for the first bytes of an archive, a picture or a document."""
    return is_archive(head) or head.startswith(_PICTURES)


def is_archive(head: bytes) -> bool:
    """True for zip, tar, 7z, rar, bzip2, xz and zstandard."""
    return head.startswith(_ARCHIVES) or head[257:262] == b"ustar"


def is_readable_archive(name: bytes, head: bytes, inner: bytes) -> bool:
    """True for a zip or tar that is read like a folder: by content, and by its name, because
    documents are zips as well.

    Args:
        name: of the file.
        head: its first bytes.
        inner: its first plain bytes, equal to `head` if it is not compressed.
    """
    name = name.lower()
    packed = head.startswith(b"PK\x03\x04") or inner[257:262] == b"ustar"
    return packed and (bool(_READABLE_ARCHIVES.search(name)) or b"." not in name)


def is_pickle_or_code(name: bytes, head: bytes) -> bool:
    """True for files that other programs would execute when they load them."""
    return name.lower().endswith(_PICKLE_NAMES) or head.startswith(_PICKLES)


def sniff(file: OpenFile) -> tuple[str | None, bytes]:
    """The kind of the content and its first bytes; the position in the file is left at the start.

    The kind is `nifti`, `analyze`, `nrrd`, `metaimage`, `mgh`, `minc`, `dicom`, `png` or None; a
    compressed stream is judged by what is inside.
    """
    head = file.read(HEAD)
    file.seek(0)
    if not is_compressed(head):
        return _kind(head), head
    kind = _kind(plain_head(file, head))
    readable = ("nifti", "analyze", "mgh", "dicom") if head.startswith(GZIP) else ("nifti", "analyze")
    return (kind if kind in readable else None), head


def plain_head(file: OpenFile, head: bytes) -> bytes:
    """The first plain bytes of a file, empty if it is a damaged stream; the position is left at the
    start."""
    if not is_compressed(head):
        return head
    try:
        inner = b""
        reader = plain_reader(file)
        while len(inner) < HEAD and (part := reader.read(HEAD - len(inner))):
            inner += part
    except VolumeError:
        inner = b""
    file.seek(0)
    return inner


def _kind(head: bytes) -> str | None:
    if head[128:132] == b"DICM":
        return "dicom"
    if head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2"):
        return "nifti"
    if _is_analyze(head):
        return "analyze"
    if re.match(rb"(ObjectType|NDims|Comment)\s*=", head):
        return "metaimage"
    if head[:6] == b"NRRD00":
        return "nrrd"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if head[:4] in (b"CDF\x01", b"CDF\x02") or head[:8] == b"\x89HDF\r\n\x1a\n":
        return "minc"
    if head[:4] == b"\x00\x00\x00\x01" and not any(head[4:18:4]) and any(head[4:20]):
        return "mgh"  # version 1, then four dimensions below 2^24, all big-endian
    return "dicom" if _is_dicom_without_preamble(head) else None


def _is_analyze(head: bytes) -> bool:
    """True for a header of 348 bytes that states its own size and one to seven dimensions, in
    either byte order."""
    if len(head) < 348:
        return False
    order = "little" if head[:4] == b"\x5c\x01\x00\x00" else "big" if head[:4] == b"\x00\x00\x01\x5c" else None
    return order is not None and 1 <= int.from_bytes(head[40:42], order) <= 7  # type: ignore[arg-type]


def _is_dicom_without_preamble(head: bytes) -> bool:
    """True if it starts with an element of group 2 or 8: its VR in letters, or a short implicit
    length."""
    if len(head) < 16 or head[:2] not in _GROUPS_WITHOUT_PREAMBLE:
        return False
    if re.match(rb"[A-Z]{2}", head[4:6]):
        return True
    return head[:2] != b"\x00\x08" and int.from_bytes(head[4:8], "little") <= 256
