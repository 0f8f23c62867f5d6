"""Modality and contrast from a file's name, its folders and its JSON sidecar: read into closed
vocabularies, never quoted."""

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from wavespark.errors import VolumeError
from wavespark.volumes.contrasts import NO_LABEL, Label, label_of, label_of_image_type, label_of_timing, label_of_words
from wavespark.volumes.files import open_regular
from wavespark.volumes.volume import MODALITIES

_SUFFIX = re.compile(r"\.(nii|hdr|img|nrrd|nhdr|mgh|mgz|mnc|mha|mhd)(\.(gz|bz2|xz|zst))?$", re.IGNORECASE)
_CT_TOKENS = {"ct", "ncct", "nect", "cect", "cta", "ccta", "ctp", "cbct", "hct", "hu", "dect", "mdct"}
_MR_TOKENS = {
    "mr", "mri", "t1w", "t1ce", "t1c", "t1gd", "t1post", "mprage", "mp2rage", "unit1", "inplanet1", "inplanet2", "bravo",
    "t2w", "t2star", "t2starw", "pdw", "flair", "dwi", "dti", "mra", "tof", "swi", "adc", "bold", "asl", "pcasl", "fmri",
    "epi", "sbref", "phase1", "phase2", "phasediff", "fieldmap", "magnitude", "magnitude1", "magnitude2", "m0scan", "qsm", "megre",
    "t1map", "t2map", "t2starmap", "r1map", "r2starmap", "angio",
}  # fmt: skip
_MR_IF_LAST = {"phase", "fa", "b0", "trace", "perf"}
_MR_FOLDERS = {
    "anat": NO_LABEL,
    "func": Label(None, "functional"),
    "dwi": Label("DWI"),
    "fmap": NO_LABEL,
    "perf": label_of("PERFUSION"),
}
_ON_CT = ("CBF", "CBV", "MTT", "TTP", "TMAX", "MIP", "SUBTRACTION", "PERFUSION", "LOCALIZER")
_OTHER_MODALITIES = {"pet", "meg", "eeg", "ieeg", "nirs", "xray"}
_CT_KEYS = {"ConvolutionKernel", "KVP", "XRayTubeCurrent", "XRayExposure", "ExposureInmAs", "GantryDetectorTilt"}
_MR_KEYS = {"MagneticFieldStrength", "EchoTime", "RepetitionTime", "ScanningSequence", "MRAcquisitionType", "TaskName"}
_MAX_SIDECAR = 1 << 20


class Kind(NamedTuple):
    """Modality, contrast and note as far as a name or header states them, None where it does
    not."""

    modality: str | None
    contrast: str | None
    note: str | None = None


def kind_of(path: bytes, relative: str = "") -> Kind:
    """Modality, contrast and note that the JSON sidecar, the file's name and its folders state, in
    this order.

    Args:
        path: absolute path of the file.
        relative: its path below the root. Folders above the root say nothing.

    Raises:
        VolumeError: `not_an_image_volume` for PET and other kinds that are neither CT nor MR.
    """
    tokens = _tokens(_SUFFIX.sub("", (relative or path.decode("utf-8", "replace")).rpartition("/")[2]))
    folders = [_tokens(part) for part in relative.split("/")[:-1]]
    name = label_of_words(" ".join(tokens))
    stated = _sidecar(path)
    modality = _modality_of(stated)
    if modality is None:
        if tokens and tokens[-1] in _OTHER_MODALITIES:
            raise VolumeError("not_an_image_volume", "its name says that it is neither CT nor MR")
        modality = _modality_of_names(tokens, folders)
    label = _label_of(stated)
    if label == NO_LABEL or (label.note is None and name.note is not None):
        label = name
    if label == NO_LABEL and folders and modality != "CT":
        label = next((_MR_FOLDERS[token] for token in folders[-1] if token in _MR_FOLDERS), NO_LABEL)
    if modality == "CT":
        label = label_on_ct(label)
    elif modality is None and label.note is not None and label.contrast not in (None, *_ON_CT):
        modality = "MR"
    return Kind(modality, label.contrast, label.note)


def label_on_ct(label: Label) -> Label:
    """The label as far as it can be true of a CT: an "angio" is a CTA, a T1 is a slip."""
    if label.contrast in ("CTA", "MRA"):
        return Label("CTA")
    return label if label.contrast in _ON_CT else NO_LABEL


def _modality_of_names(tokens: list[str], folders: list[list[str]]) -> str | None:
    """The file's own name first, then its folders from the nearest; a name with words of both says
    nothing."""
    known, last = set(tokens), set(tokens[-1:])
    ct, mr = bool(known & _CT_TOKENS), bool(known & _MR_TOKENS or last & _MR_IF_LAST)
    if ct != mr:
        return "CT" if ct else "MR"
    if ct:
        return "CT" if last & _CT_TOKENS else ("MR" if last & (_MR_TOKENS | _MR_IF_LAST) else None)
    for folder in reversed(folders):
        ct, mr = bool(set(folder) & _CT_TOKENS), bool(set(folder) & (_MR_TOKENS | set(_MR_FOLDERS)))
        if ct != mr:
            return "CT" if ct else "MR"
    return None


def _sidecar(path: bytes) -> Mapping[str, Any]:
    """The JSON file of the same name, as dcm2niix writes it; empty if there is none or it cannot be
    read."""
    beside = re.sub(rb"\.((nii|img|hdr|nrrd|mgh)\.(gz|bz2|xz|zst)|[A-Za-z0-9]+)$", b"", path) + b".json"
    try:
        with open_regular(beside) as file:
            text = file.read(_MAX_SIDECAR) if file.size <= _MAX_SIDECAR else b""
        document = json.loads(text)
    except (VolumeError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _modality_of(stated: Mapping[str, Any]) -> str | None:
    """`Modality`, else the quantities that only one kind of scanner has."""
    modality = stated.get("Modality")
    if isinstance(modality, str) and modality:
        if modality not in MODALITIES:
            raise VolumeError("not_an_image_volume", "its sidecar says that it is neither CT nor MR")
        return modality
    ct, mr = bool(_CT_KEYS & set(stated)), bool(_MR_KEYS & set(stated))
    return None if ct == mr else "CT" if ct else "MR"


def _label_of(stated: Mapping[str, Any]) -> Label:
    """The kind by ImageType, else by the words of the protocol, else by the timing (seconds in a
    sidecar)."""
    kinds = stated.get("ImageType")
    label = label_of_image_type(v for v in kinds if isinstance(v, str)) if isinstance(kinds, list) else NO_LABEL
    words = " ".join(str(stated.get(key, "")) for key in ("SeriesDescription", "ProtocolName"))
    if label == NO_LABEL:
        label = label_of_words(words)
    if label == NO_LABEL and isinstance(stated.get("TaskName"), str):
        return label_of("BOLD")
    if label == NO_LABEL and str(stated.get("ScanningSequence", "")).startswith("EP"):
        return Label(None, "functional")
    if label == NO_LABEL:
        times = (stated.get(key) for key in ("RepetitionTime", "EchoTime", "InversionTime"))
        return label_of_timing(*(1000.0 * t if isinstance(t, int | float) else None for t in times))
    return label


def _tokens(text: str) -> list[str]:
    return [token for token in re.split(r"[^a-z0-9]+", text.lower()) if token]
