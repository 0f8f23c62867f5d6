"""Header values that distinguish the images of one DICOM series, and the kind of each image.

Traits are compared and never shown. A trait that names another acquisition (echo, kernel, b-value)
makes another volume; one that may change within a volume (time, acquisition number) only orders
repetitions at the same places.
"""

import math
from collections.abc import Sequence

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from wavespark.volumes.contrasts import (
    NO_LABEL,
    STRUCTURAL,
    Label,
    label_of,
    label_of_image_type,
    label_of_timing,
    label_of_words,
)
from wavespark.volumes.naming import label_on_ct

# Keyword at the top of the data set, and (functional group, keyword) of enhanced objects (PS3.3
# C.7.6.16, C.8.13, C.8.15).
_ACQUISITION: dict[str, tuple[str, str] | None] = {
    "EchoTime": ("MREchoSequence", "EffectiveEchoTime"),
    "EchoNumbers": None,
    "InversionTime": ("MRModifierSequence", "InversionTimes"),
    "FlipAngle": ("MRTimingAndRelatedParametersSequence", "FlipAngle"),
    "DiffusionBValue": ("MRDiffusionSequence", "DiffusionBValue"),
    "ImageType": ("MRImageFrameTypeSequence", "FrameType"),
    "ComplexImageComponent": ("MRImageFrameTypeSequence", "ComplexImageComponent"),
    "ScanningSequence": None,
    "ConvolutionKernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "KVP": ("CTXRayDetailsSequence", "KVP"),
    "FrameOfReferenceUID": None,
    "SeriesDescription": None,
    "SeriesNumber": None,
    "ContrastBolusAgent": None,
    "PatientPosition": None,
}
_CT_FRAME_TYPE = ("CTImageFrameTypeSequence", "FrameType")
_REPETITION: dict[str, tuple[str, str] | None] = {
    "TemporalPositionIdentifier": ("FrameContentSequence", "TemporalPositionIndex"),
    "AcquisitionNumber": ("FrameContentSequence", "FrameAcquisitionNumber"),
    "StackID": ("FrameContentSequence", "StackID"),
    "RepetitionTime": ("MRTimingAndRelatedParametersSequence", "RepetitionTime"),
    "SliceThickness": None,
    "SequenceName": None,
    "TriggerTime": ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime"),
    "DiffusionGradientOrientation": ("MRDiffusionSequence", "DiffusionGradientDirectionSequence"),
    "AcquisitionTime": ("FrameContentSequence", "FrameAcquisitionDateTime"),
    "AcquisitionDate": None,
    "AcquisitionDateTime": None,
    "ContentTime": None,
}
_MEASURED = ("EchoTime", "InversionTime", "FlipAngle", "KVP")
MEASURED = tuple(list(_ACQUISITION).index(keyword) for keyword in _MEASURED)
"""Indices of measured quantities among the acquisition traits: they may jitter from slice to
slice."""
ACQUISITION_NUMBER = list(_REPETITION).index("AcquisitionNumber")
"""Index of the acquisition number among the repetition traits."""
ACQUISITION_TIME = list(_REPETITION).index("AcquisitionTime")
"""Index of the acquisition time among the repetition traits."""
ACQUISITION_DATE = list(_REPETITION).index("AcquisitionDate")
"""Index of the acquisition date among the repetition traits."""

_LABEL_KEYWORDS = ("ProtocolName", "AngioFlag", "EchoPlanarPulseSequence", "AcquisitionContrast", "ImagesInAcquisition")
_GE_CREATOR, _GE_COMPONENT = BaseTag(0x00430010), BaseTag(0x0043102F)  # 0 magnitude, 1 phase, 2 real, 3 imaginary
_SIEMENS_CREATOR, _SIEMENS_TILES = BaseTag(0x00190010), BaseTag(0x0019100A)
_UIH_CREATOR, _UIH_TILES = BaseTag(0x00650010), BaseTag(0x00651050)

_TAG_OF = {
    keyword: BaseTag(tag)
    for keyword in (*_ACQUISITION, *_REPETITION, *_LABEL_KEYWORDS)
    if (tag := tag_for_keyword(keyword)) is not None
}
TRAIT_TAGS: tuple[int, ...] = (
    *_TAG_OF.values(),
    _GE_CREATOR, _GE_COMPONENT, _SIEMENS_CREATOR, _SIEMENS_TILES, _UIH_CREATOR, _UIH_TILES,
)  # fmt: skip
"""The allow-list of traits."""


def acquisition_traits(groups: Sequence[Dataset], dataset: Dataset) -> tuple[object, ...]:
    """Collect the values that must be equal among the slices of one volume; None where a file does
    not say."""
    traits = [_trait(groups, where, dataset, top) for top, where in _ACQUISITION.items()]
    agent = list(_ACQUISITION).index("ContrastBolusAgent")
    traits[agent] = traits[agent] or "none"  # images before the injection do not mention it
    kind = list(_ACQUISITION).index("ImageType")
    ct_frame = _in_group(groups, _CT_FRAME_TYPE)
    if ct_frame is not None:
        traits[kind] = ct_frame
    return (*traits, _private(dataset, _GE_CREATOR, "GEMS_PARM_01", _GE_COMPONENT))


def repetition_traits(groups: Sequence[Dataset], dataset: Dataset) -> tuple[object, ...]:
    """Collect the values that may distinguish repetitions at one place; dimension indices of
    enhanced objects come last."""
    traits = [_trait(groups, where, dataset, top) for top, where in _REPETITION.items()]
    indices = _in_group(groups, ("FrameContentSequence", "DimensionIndexValues"))
    return (*traits, *(indices if isinstance(indices, tuple) else ()))


def tiles_of(dataset: Dataset) -> int | None:
    """Number of slices tiled in one picture (Siemens mosaic, UIH grid); 0 if the number is not
    stated, None for no tiling."""
    stated = _private(dataset, _SIEMENS_CREATOR, "SIEMENS MR HEADER", _SIEMENS_TILES)
    if stated is None and _UIH_TILES in dataset:
        stated = _first(_comparable(dataset[_UIH_TILES].value), Dataset(), "EchoTime")
    kinds = {str(value).strip().upper() for value in _values(dataset, "ImageType")}
    if isinstance(stated, float) and stated > 1:
        return int(stated)
    return 0 if kinds & {"MOSAIC", "VFRAME"} else None


def label_of_image(groups: Sequence[Dataset], dataset: Dataset, modality: str | None, words: Label) -> Label:
    """The contrast and kind of an image.

    Args:
        groups: functional groups of the frame, its own before the shared ones.
        dataset: the header.
        modality: `MR`, `CT` or None.
        words: what the descriptions state (see `label_of_description`).
    """
    label = _by_type(groups, dataset)
    if modality == "CT":
        label = label_on_ct(label)
        return label if label != NO_LABEL else label_on_ct(words)
    if modality != "MR":
        return NO_LABEL
    component = _in_group(groups, ("MRImageFrameTypeSequence", "ComplexImageComponent")) or _plain(
        dataset, "ComplexImageComponent"
    )
    if component in ("PHASE", "REAL", "IMAGINARY") or _private(dataset, _GE_CREATOR, "GEMS_PARM_01", _GE_COMPONENT) in (
        1.0,
        2.0,
        3.0,
    ):
        return label_of("PHASE")
    if label.contrast == "PERFUSION" and words.note == "derived_map":
        return words
    if label != NO_LABEL:
        return label
    if words.note is not None:
        return words
    if _is_diffusion(groups, dataset):
        return Label("DWI")
    if words != NO_LABEL and words.contrast in STRUCTURAL:
        return words if words.contrast != "CTA" else NO_LABEL
    if _is_echo_planar(dataset):
        return Label(None, "functional")
    if _plain(dataset, "AngioFlag") == "Y":
        return Label("MRA")
    echo = _first(_in_group(groups, ("MREchoSequence", "EffectiveEchoTime")), dataset, "EchoTime")
    repetition = _first(
        _in_group(groups, ("MRTimingAndRelatedParametersSequence", "RepetitionTime")), dataset, "RepetitionTime"
    )
    inversion = _first(_in_group(groups, ("MRModifierSequence", "InversionTimes")), dataset, "InversionTime")
    return label_of_timing(repetition, echo, inversion)


def label_of_description(dataset: Dataset) -> Label:
    """Label that the descriptions of a series state."""
    series = label_of_words(str(_value(dataset, "SeriesDescription") or ""))
    return series if series != NO_LABEL else label_of_words(str(_value(dataset, "ProtocolName") or ""))


def _by_type(groups: Sequence[Dataset], dataset: Dataset) -> Label:
    frame = _in_group(groups, ("MRImageFrameTypeSequence", "FrameType")) or _in_group(groups, _CT_FRAME_TYPE)
    values = frame if isinstance(frame, tuple) else _values(dataset, "ImageType")
    return label_of_image_type(str(value) for value in values)


def _is_diffusion(groups: Sequence[Dataset], dataset: Dataset) -> bool:
    value = _first(_in_group(groups, ("MRDiffusionSequence", "DiffusionBValue")), dataset, "DiffusionBValue")
    return value is not None or _plain(dataset, "AcquisitionContrast") == "DIFFUSION"


def _is_echo_planar(dataset: Dataset) -> bool:
    name = str(_value(dataset, "SequenceName") or "").strip().lower().lstrip("*")
    return (
        "EP" in (str(value).strip() for value in _values(dataset, "ScanningSequence"))
        or _plain(dataset, "EchoPlanarPulseSequence") == "YES"
        or name.startswith(("ep_", "epfid", "epse", "ep2d"))
    )


def _trait(groups: Sequence[Dataset], where: tuple[str, str] | None, dataset: Dataset, top: str) -> object:
    value = _in_group(groups, where) if where and groups else None
    return value if value is not None else _comparable(_value(dataset, top))


def _value(dataset: Dataset, keyword: str) -> object:
    """The value of an element, None if there is none.

    Looking up the tag is much faster than pydicom's attribute access.
    """
    tag = _TAG_OF[keyword]
    return dataset[tag].value if tag in dataset else None


def _in_group(groups: Sequence[Dataset], where: tuple[str, str]) -> object:
    sequence, keyword = where
    for group in groups:
        for item in list(group[sequence].value or [])[:1] if sequence in group else ():
            if keyword in item:
                return _comparable(item[keyword].value)
    return None


def _comparable(value: object) -> object:
    """A number, a text or a tuple of these; None if it is empty.

    Numbers are rounded, so that jitter makes no other volume.
    """
    if isinstance(value, Dataset):
        return _comparable(next((element.value for element in value), None))
    if value is None or isinstance(value, int | float):
        return None if value is None else round(float(value), 2)
    if isinstance(value, str):
        text = value.strip()
        try:
            number = float(text) if text else None
        except ValueError:
            return text
        return text or None if number is None or not math.isfinite(number) else round(number, 2)
    if hasattr(value, "__iter__") and not isinstance(value, bytes):
        several = tuple(_comparable(v) for v in value)
        return None if not several else several[0] if len(several) == 1 else several
    return str(value)


def _first(stated: object, dataset: Dataset, keyword: str) -> float | None:
    value = stated if stated is not None else _comparable(_value(dataset, keyword))
    value = value[0] if isinstance(value, tuple) else value
    return value if isinstance(value, float) else None


def _values(dataset: Dataset, keyword: str) -> list[object]:
    value = dataset[keyword].value if keyword in dataset else None
    if value is None:
        return []
    return list(value) if hasattr(value, "__iter__") and not isinstance(value, str) else [value]


def _plain(dataset: Dataset, keyword: str) -> str:
    return str(_value(dataset, keyword) or "").strip().upper()


def _private(dataset: Dataset, creator: int, name: str, tag: int) -> float | None:
    """The first number of a private element, if its block belongs to that creator."""
    if creator not in dataset or tag not in dataset or str(dataset[creator].value).strip() != name:
        return None
    value = dataset[tag].value
    if isinstance(value, bytes):  # of unknown VR in an implicit data set
        value = int.from_bytes(value[:2], "little") if len(value) <= 4 else value.decode("ascii", "replace")
    return _first(_comparable(value), Dataset(), "EchoTime")
