"""OpenMind: head MR from OpenNeuro with anonymisation masks, listed in nnssl's `pretrain_data.json`
or in `openneuro_metadata.csv`.

Source: T. Wald et al., "An OpenMind for 3D medical vision self-supervised learning", 2024.
"""

import os
from dataclasses import replace

from wavespark.volumes import Beside, Refusal, Source, patient_id

_LISTS = (b"pretrain_data.json", b"openneuro_metadata.csv")


def is_it(folder: bytes) -> bool:
    """True for a folder with one of its lists."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in _LISTS)


def start(folder: bytes) -> bytes:
    """The list, the folder itself if there is none."""
    return next((p for p in (os.path.join(folder, name) for name in _LISTS) if os.path.isfile(p)), folder)


def adapt(
    folder: bytes, found: tuple[tuple[Source, ...], tuple[Refusal, ...]], secret: bytes
) -> tuple[tuple[Source, ...], tuple[Refusal, ...]]:
    """All is MR, and `sub-01` of one study is not `sub-01` of another."""
    sources, refused = found
    return tuple(_with_patient(s, secret) for s in sources), refused


def _with_patient(source: Source, secret: bytes) -> Source:
    parts = source.relative.split("/")
    subject = next((n for n, part in enumerate(parts) if part.startswith("sub-")), None)
    patient = source.patient if not subject else patient_id(secret, "/".join(parts[: subject + 1]))
    beside: Beside = replace(source.beside, modality=source.beside.modality or "MR")
    return replace(source, patient=patient, beside=beside)
