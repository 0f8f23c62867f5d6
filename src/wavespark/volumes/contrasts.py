"""The closed vocabulary of contrasts, the kinds that pre-training leaves out, and the words that
name them.

Nothing written in a file is quoted: descriptions and names are only matched against this
vocabulary.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import NamedTuple

STRUCTURAL = ("T1", "T2", "PD", "FLAIR", "MRA", "DWI", "CTA")
"""Contrasts of images that show anatomy."""

_NOTE_OF = {
    "PHASE": "phase",
    "FIELDMAP": "phase",
    "ADC": "derived_map",
    "FA": "derived_map",
    "TRACE": "derived_map",
    "B0": "derived_map",
    "CBF": "derived_map",
    "CBV": "derived_map",
    "MTT": "derived_map",
    "TTP": "derived_map",
    "TMAX": "derived_map",
    "T1MAP": "derived_map",
    "T2MAP": "derived_map",
    "QSM": "derived_map",
    "SWI": "derived_map",
    "MIP": "derived_map",
    "SUBTRACTION": "derived_map",
    "BOLD": "functional",
    "ASL": "functional",
    "PERFUSION": "functional",
    "LOCALIZER": "localizer",
}

CONTRASTS = (*STRUCTURAL, *_NOTE_OF)
"""Closed vocabulary of contrasts, so that nothing written in a file can leak through this field."""

NOT_FOR_PRETRAINING = frozenset(_NOTE_OF)
"""Contrasts of maps, phase images, functional series and localizers.

A volume of one also carries its note.
"""

NOTES_NOT_FOR_PRETRAINING = frozenset({*_NOTE_OF.values(), "time_series"})
"""Note codes of volumes that pre-training leaves out by default, whether or not their contrast is
known."""


class Label(NamedTuple):
    """Contrast and kind of an image, as far as they are known."""

    contrast: str | None = None
    """One of `CONTRASTS`."""
    note: str | None = None
    """One of `NOTES_NOT_FOR_PRETRAINING`, None for an image that shows anatomy."""


NO_LABEL = Label()


def label_of(contrast: str | None) -> Label:
    """The label of a contrast of the vocabulary.

    >>> label_of("ADC"), label_of("T1").note
    (Label(contrast='ADC', note='derived_map'), None)
    """
    return Label(contrast, _NOTE_OF.get(contrast or ""))


_STRUCTURAL_TOKENS = {
    "T1": {"t1", "t1w", "t1ce", "t1c", "t1gd", "t1post", "mprage", "mp2rage", "unit1", "inplanet1", "bravo"},
    "T2": {"t2", "t2w", "t2star", "t2starw", "inplanet2"},
    "PD": {"pd", "pdw"},
    "FLAIR": {"flair"},
    "DWI": {"dwi", "diffusion", "diff", "dti"},
    "CTA": {"cta"},
    "MRA": {"mra", "tof", "angio"},
}
_DIFFUSION_TOKENS = _STRUCTURAL_TOKENS["DWI"] | {"tensor", "dtifit"}

# In order: the first group with a word in the text names the kind. The words are whole tokens.
_KIND_TOKENS: tuple[tuple[str | None, str, frozenset[str]], ...] = tuple(
    (contrast, note, frozenset(words.split()))
    for contrast, note, words in (
        (
            "LOCALIZER",
            "localizer",
            "localizer localiser localizers loc 3plane 3pl scout scoutview survey topogram surview scanogram",
        ),
        ("FIELDMAP", "phase", "fieldmap b0map phasediff phasemap"),
        ("PHASE", "phase", "phase1 phase2 pha pcaphase imaginary phaseimage"),
        ("QSM", "derived_map", "qsm chimap"),
        ("SUBTRACTION", "derived_map", "subtraction subtracted subtract"),
        ("MIP", "derived_map", "mip mips minip mnip mipimages"),
        ("ADC", "derived_map", "adc eadc dadc adcmap apparent"),
        ("CBF", "derived_map", "cbf rcbf relcbf rbf qcbf"),
        ("CBV", "derived_map", "cbv rcbv relcbv rbv corcbv"),
        ("MTT", "derived_map", "mtt relmtt"),
        ("TTP", "derived_map", "ttp"),
        ("TMAX", "derived_map", "tmax"),
        ("T1MAP", "derived_map", "t1map r1map"),
        ("T2MAP", "derived_map", "t2map r2map t2starmap r2starmap r2star t2sstar"),
        ("TRACE", "derived_map", "trace tracew traceweighted"),
        ("SWI", "derived_map", "swi swan venobold"),
        (None, "derived_map", "colfa ktrans kep mtr mtrmap mtsat mwf cest t1rho ffmap tmap zmap tstat zstat pbmap"),
        ("BOLD", "functional", "bold"),
        ("ASL", "functional", "asl pcasl pasl casl m0scan tgse aslcontext"),
        ("PERFUSION", "functional", "perfusion perf dsc dce ctp perfusionweighted"),
        (None, "functional", "fmri rsfmri fcmri sbref resting"),
    )
)
_PHRASES = (  # of the text with its tokens joined by single spaces
    ("FIELDMAP", "phase", re.compile(r" (field map|b0 map|phase diff|phase difference|phase map) ")),
    ("T1MAP", "derived_map", re.compile(r" t1 map ")),
    ("T2MAP", "derived_map", re.compile(r" (t2|t2star|r2|r2star) map ")),
    ("MIP", "derived_map", re.compile(r" (maximum|minimum) intensity ")),
    ("PHASE", "phase", re.compile(r" (phase images?|phase) $| part (phase|real|imag) ")),
)
# "Phase" also names a point of time, a chemical shift and a direction.
_OTHER_PHASE = re.compile(
    r" (in|out|of|opp|opposed|arterial|venous|portal|late|early|delayed|equilibrium|parenchymal|nephrographic|single|multi|"
    r"first|second|systolic|diastolic|\d+) phase $"
)
_LAST_TOKENS = {"fa": "FA", "b0": "B0", "nodif": "B0", "ph": "PHASE"}


@lru_cache(maxsize=256)  # all slices of a series have the same words
def label_of_words(words: str) -> Label:
    """The contrast or kind that a name or description states.

    >>> label_of_words("ep2d_diff_ADC"), label_of_words("AX T2 PROPELLER").contrast, label_of_words("MR 12")
    (Label(contrast='ADC', note='derived_map'), 'T2', Label(contrast=None, note=None))
    """
    tokens = _tokens(words)
    known = set(tokens)
    text = f" {' '.join(tokens)} "
    for contrast, note, pattern in _PHRASES:
        if pattern.search(text) and not (contrast == "PHASE" and _OTHER_PHASE.search(text)):
            return Label(contrast, note)
    for kind, note, names in _KIND_TOKENS:
        if known & names:
            return Label(kind, note)
    for token, contrast in _LAST_TOKENS.items():
        if token in known and (tokens[-1] == token or known & _DIFFUSION_TOKENS):
            return label_of(contrast)
    found = [contrast for contrast, names in _STRUCTURAL_TOKENS.items() if known & names]
    if not found and "epi" in known:
        return Label(None, "functional")
    return Label(found[-1] if found else None)  # later entries win: "t1 mra" is an angiography


def contrast_of(words: str) -> str | None:
    """The contrast that a name or description states.

    >>> contrast_of("sub-01_acq-tof_angio"), contrast_of("AX T2 PROPELLER"), contrast_of("anything")
    ('MRA', 'T2', None)
    """
    return label_of_words(words).contrast


# Values of ImageType (PS3.3 C.8.3.1.1.1, C.8.16.1) and of their vendors, upper case, without
# separators.
_IMAGE_TYPES: tuple[tuple[str | None, str, frozenset[str]], ...] = tuple(
    (contrast, note, frozenset(words.split()))
    for contrast, note, words in (
        ("LOCALIZER", "localizer", "LOCALIZER SCOUT TOPOGRAM"),
        ("FIELDMAP", "phase", "B0MAP FIELDMAP FIELDMAPHZ B1MAP"),
        ("PHASE", "phase", "P PHASE PHASEMAP R REAL I IMAGINARY VELOCITY VELOCITYMAP PHASECONTRASTP PHASEDIFF"),
        ("SUBTRACTION", "derived_map", "SUBTRACTION SUB SUBTRACT SUBTRACTED"),
        ("MIP", "derived_map", "MIP MAXIP MINIP MNIP MINIMUM MAXIMUM PROJECTIONIMAGE MIPSUM MAXINTENSITY"),
        ("ADC", "derived_map", "ADC EADC ADCUNSPECIFIED ADCMAP EXPONENTIALADC"),
        ("FA", "derived_map", "FA COLFA FRACTIONALANISOTROPY RA VR"),
        ("TRACE", "derived_map", "TRACE TRACEW TRACEWEIGHTED ISOTROPIC DIFFUSIONTRACE"),
        ("B0", "derived_map", "B0 TENSORB0"),
        ("CBF", "derived_map", "CBF RCBF RELCBF GBF"),
        ("CBV", "derived_map", "CBV RCBV RELCBV CORRECTEDCBV RELCCBV"),
        ("MTT", "derived_map", "MTT RELMTT"),
        ("TTP", "derived_map", "TTP"),
        ("TMAX", "derived_map", "TMAX"),
        ("T1MAP", "derived_map", "T1MAP R1MAP"),
        ("T2MAP", "derived_map", "T2MAP R2MAP T2STARMAP R2STARMAP R2STAR"),
        ("QSM", "derived_map", "QSM"),
        ("SWI", "derived_map", "SWI"),
        (
            None,
            "derived_map",
            "TENSOR EXP PBP GBP KTRANS KEP VE TTEST ZSCORE ZMAP TMAP PDMAP MTR FATFRACTION MEAN STDDEV PERCENTAGE "
            "PARAMETRIC SPECTROSCOPY METABOLITEMAP ANGIOTIME IAUC PEI FUNCTIONALMAP",
        ),
        ("ASL", "functional", "ASL ARTERIALSPINLABELING"),
        ("PERFUSION", "functional", "PERFUSION"),
        ("BOLD", "functional", "BOLD"),
        (None, "functional", "FMRI"),
    )
)
_PART_WITH_SEQUENCE = re.compile(r"[PRI]_[A-Z0-9_]+")  # Philips: P_FFE, R_IR, I_SE


def label_of_image_type(values: Iterable[str]) -> Label:
    """The kind that the values of an ImageType state; no label for an ordinary image.

    >>> label_of_image_type(["ORIGINAL", "PRIMARY", "P", "ND"])
    Label(contrast='PHASE', note='phase')
    """
    return _label_of_type(
        tuple(str(value).strip().upper() for value in values)[1:]
    )  # the first says original or derived


@lru_cache(maxsize=256)
def _label_of_type(values: tuple[str, ...]) -> Label:
    plain = {re.sub(r"[^A-Z0-9]", "", value) for value in values}
    if any(_PART_WITH_SEQUENCE.fullmatch(value) for value in values):
        return label_of("PHASE")
    for contrast, note, names in _IMAGE_TYPES:
        if plain & names:
            return Label(contrast, note)
    return NO_LABEL


def label_of_timing(repetition: float | None, echo: float | None, inversion: float | None) -> Label:
    """The contrast that the timing of a sequence gives; milliseconds."""
    if repetition is None or echo is None or repetition <= 0:
        return NO_LABEL
    if echo >= 60:
        return Label("FLAIR" if inversion and inversion > 1500 else "T2")
    if repetition >= 1500 and echo <= 35:
        return Label("PD" if not inversion else "T1")
    return Label("T1" if 250 <= repetition <= 1000 and echo <= 30 else None)


def _tokens(words: str) -> list[str]:
    return [token for token in re.split(r"[^a-z0-9]+", words.lower()) if token]
