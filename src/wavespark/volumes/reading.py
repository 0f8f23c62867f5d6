"""`read_volumes`: a file or folder to volumes and refusals."""

import os
from dataclasses import replace

from wavespark.errors import VolumeError
from wavespark.volumes.analyze import load_analyze
from wavespark.volumes.dicom import read_dicom
from wavespark.volumes.finding import find_sources
from wavespark.volumes.finish import finish
from wavespark.volumes.metaimage import load_metaimage
from wavespark.volumes.mgh import load_mgh
from wavespark.volumes.minc import load_minc
from wavespark.volumes.naming import kind_of
from wavespark.volumes.nifti import load_nifti
from wavespark.volumes.nrrd_file import load_nrrd
from wavespark.volumes.png_slices import read_png
from wavespark.volumes.privacy import new_secret, patient_id, session_id, unquoted
from wavespark.volumes.settings import Override, ReadingSettings
from wavespark.volumes.source import Source
from wavespark.volumes.volume import Found, Refusal, Volume

_LOADERS = {
    "nifti": load_nifti,
    "analyze": load_analyze,
    "nrrd": load_nrrd,
    "metaimage": load_metaimage,
    "mgh": load_mgh,
    "minc": load_minc,
}


def read_volumes(
    path: str | bytes | os.PathLike, *, secret: bytes | None = None, settings: ReadingSettings | None = None
) -> Found:
    """Every volume at or below a path, and every input that was left out with its reason.

    Everything is held in memory: for many volumes take `find_sources` and `read_source`, one at a
        time.

    Args:
        path: a file, a folder or an archive (zip, tar) of NIfTI, DICOM, Analyze, NRRD, MetaImage,
            MGH or MINC files or PNG slices.
        secret: key of the ids; a random one for this call if None, so that ids cannot be traced.
        settings: limits and opt-in repairs.

    Raises:
        InputError: `no_input`, `bad_manifest`, `unsafe_archive` or `unsafe_file`, when the path
            itself cannot be used. Bad content never raises.
    """
    secret = secret or new_secret()
    settings = settings or ReadingSettings()
    sources, refused = find_sources(path, secret, settings)
    volumes: list[Volume] = []
    left_out = list(refused)
    for source in sources:
        try:
            volumes += read_source(source, secret, settings)
        except VolumeError as error:
            left_out.append(Refusal(source_id=source.id, reason=error.reason, sentence=error.sentence))
    return Found(volumes=tuple(volumes), refused=tuple(left_out))


def read_source(
    source: Source, secret: bytes, settings: ReadingSettings | None = None, *, override: Override | None = None
) -> tuple[Volume, ...]:
    """The volumes of one source: one, or one for each time point, echo or reconstruction of a DICOM
    series.

    Args:
        source: what to read.
        secret: key of the ids.
        settings: limits and opt-in repairs.
        override: what the user states about this input. It wins over the settings, a manifest, the
            file and its name.

    Raises:
        VolumeError: with a reason code; its sentence quotes nothing from the file.
    """
    settings = settings or ReadingSettings()
    override = override or Override()
    settings = replace(
        settings,
        modality=override.modality or settings.modality or source.beside.modality,
        contrast=override.contrast or settings.contrast or source.beside.contrast,
    )
    return tuple(_with_identity(volume, override, secret) for volume in _read(source, secret, settings))


def _with_identity(volume: Volume, override: Override, secret: bytes) -> Volume:
    """The volume with the patient and the session that the user states."""
    patient = volume.patient if override.patient is None else patient_id(secret, override.patient)
    session = volume.session if override.session is None else session_id(secret, patient, override.session)
    if (patient, session) == (volume.patient, volume.session):
        return volume
    return replace(volume, patient=patient, session=session)


def _read(source: Source, secret: bytes, settings: ReadingSettings) -> tuple[Volume, ...]:
    try:
        with unquoted("corrupt", "it cannot be read: its content contradicts its format"):
            if source.kind == "dicom":
                return read_dicom(source, secret, settings)
            return (read_png(source, settings) if source.kind == "png" else _read_file(source, settings),)
    except MemoryError:
        raise VolumeError("too_large", "it does not fit into memory: use a larger machine") from None


def _read_file(source: Source, settings: ReadingSettings) -> Volume:
    (path,) = source.paths
    voxels, affine, notes = _LOADERS[source.kind](path, settings)
    return finish(
        voxels,
        affine,
        kind=kind_of(source.named or path, source.relative),
        id=source.id,
        patient=source.patient,
        session=source.session,
        notes=notes | set(source.notes),
        settings=settings,
    )
