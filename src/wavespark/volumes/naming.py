"""Modality and contrast from a file's name and JSON sidecar: read into closed vocabularies, never quoted."""

import json
import re
from typing import NamedTuple

from wavespark.errors import VolumeError
from wavespark.volumes.files import open_regular
from wavespark.volumes.volume import MODALITIES

_SUFFIX = re.compile(r"\.(nii|nii\.gz|hdr|img|nrrd|nhdr|mgh|mgz|mnc)$", re.IGNORECASE)
_TOKEN_CONTRASTS = {
    "T1": {"t1", "t1w", "t1ce", "t1c", "t1gd", "t1post", "mprage", "unit1", "inplanet1"},
    "T2": {"t2", "t2w", "t2star", "t2starw", "inplanet2"},
    "PD": {"pd", "pdw"},
    "FLAIR": {"flair"},
    "DWI": {"dwi"},
    "CTA": {"cta"},
    "MRA": {"mra", "tof", "angio"},
}
_OTHER_MODALITIES = {"pet", "meg", "eeg", "ieeg", "nirs", "xray"}
_MAX_SIDECAR = 1 << 20


class Kind(NamedTuple):
    """What a name or header says, None where it does not."""

    modality: str | None
    contrast: str | None


def contrast_of(words: str) -> str | None:
    """The contrast that a name or description states.

    >>> contrast_of("sub-01_acq-tof_angio"), contrast_of("AX T2 PROPELLER"), contrast_of("scout")
    ('MRA', 'T2', None)
    """
    tokens = set(re.split(r"[^a-z0-9]+", words.lower()))
    # Later entries win: "t1 mra" is an angiography.
    found = [contrast for contrast, names in _TOKEN_CONTRASTS.items() if tokens & names]
    return found[-1] if found else None


def kind_of(path: bytes) -> Kind:
    """What the file's name and its JSON sidecar say.

    Raises:
        VolumeError: `not_an_image_volume` for PET and other kinds that are neither CT nor MR.
    """
    stem = _SUFFIX.sub("", path.rpartition(b"/")[2].decode("utf-8", "replace"))
    suffix = re.split(r"[^a-z0-9]+", stem.lower())[-1]
    contrast = contrast_of(stem)
    modality = _sidecar_modality(path)
    if modality is None:
        if suffix in _OTHER_MODALITIES:
            raise VolumeError("not_an_image_volume", "its name says that it is neither CT nor MR")
        if suffix == "ct" or contrast == "CTA":
            modality = "CT"
        elif contrast is not None and suffix in set().union(*_TOKEN_CONTRASTS.values()):
            modality = "MR"
    if modality == "CT":
        contrast = "CTA" if contrast in ("CTA", "MRA") else None  # "angio" on a CT
    return Kind(modality, contrast)


def _sidecar_modality(path: bytes) -> str | None:
    """`Modality` of the JSON file of the same name, as dcm2niix writes it."""
    sidecar = re.sub(rb"\.(nii\.gz|[A-Za-z]+)$", b"", path) + b".json"
    try:
        with open_regular(sidecar) as file:
            text = file.read(_MAX_SIDECAR) if file.size <= _MAX_SIDECAR else b""
        document = json.loads(text)
    except (VolumeError, ValueError, RecursionError):
        return None
    modality = document.get("Modality") if isinstance(document, dict) else None
    if not isinstance(modality, str):
        return None
    if modality not in MODALITIES:
        raise VolumeError("not_an_image_volume", "its sidecar says that it is neither CT nor MR")
    return modality
