"""DICOM Segmentation objects that lie on their source series, for viewers and archives (DICOM PS3.3
A.51).

highdicom (extra `dicom-seg`) writes them. They carry the identity of the patient and the study, as
an archive needs to file them: no other output does, and these are written on request only.
"""

import io
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from wavespark import __version__
from wavespark.downstream.items import read_labels_of
from wavespark.errors import DependencyError, SettingsError
from wavespark.files import write_file
from wavespark.prepare import Store
from wavespark.prepare.origins import dicom_files
from wavespark.progress import Log
from wavespark.quiet import quiet

_ATTRIBUTE = re.compile(r"\b([A-Z][A-Za-z]+)'?$")

_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Type 2 in DICOM: must be there, may be empty; de-identified series often lack them."""


def write_dicom_segmentations(
    store: Store,
    roots: Iterable[str | Path],
    folder: Path,
    classes: int,
    log: Log,
    names: Sequence[str] = (),
) -> tuple[str, ...]:
    """Write `ID.seg.dcm` beside each `ID.nii.gz` whose volume came from a DICOM series of its own.

    Args:
        store: the volumes that were segmented.
        roots: the files and folders that the store was prepared from.
        folder: with the segmentations.
        classes: of the model, background included.
        log: called with a sentence about each volume that gets none.
        names: of classes 1, 2, ...; `class 1` and so on if there are none.

    Returns:
        The names of the files.

    Raises:
        DependencyError: if highdicom is not installed.
        StoreError: if the disk is full, or the store's secret cannot be read.
    """
    files, written = dicom_files(store, roots), []
    for volume in store:
        source = folder / f"{volume.id}.nii.gz"
        if not source.is_file():
            continue
        if volume.id not in files:
            log(f"{volume.id}: no DICOM Segmentation, because its source is not a DICOM series with this volume alone")
            continue
        labels, affine = read_labels_of(source, f"the prediction of {volume.id}")
        try:
            content = _encoded(labels, affine, files[volume.id], classes, names)
        except SettingsError as error:
            log(f"{volume.id}: {error}")
            continue
        name = f"{volume.id}.seg.dcm"
        write_file(folder / name, content)
        written.append(name)
    return tuple(written)


def _encoded(labels: np.ndarray, affine: np.ndarray, files: Sequence[str], classes: int, names: Sequence[str]) -> bytes:
    content = io.BytesIO()
    with quiet():
        dicom_segmentation(labels, affine, files, classes, names).save_as(content)
    return content.getvalue()


def require_highdicom() -> None:
    """Raise a DependencyError if highdicom is not installed: before minutes of prediction, not
    after them."""
    if find_spec("highdicom") is None:
        raise DependencyError("highdicom", "dicom-seg", "--dicom-seg")


def dicom_segmentation(
    labels: np.ndarray, affine: np.ndarray, files: Sequence[str], classes: int, names: Sequence[str] = ()
) -> Any:
    """Build a binary DICOM Segmentation, one segment for each class but the background.

    Args:
        labels: whole numbers [i, j, k], 0 for background.
        affine: index to RAS mm.
        files: the source series, single slices or one file of many frames; its pixels are not read.
        classes: of the model, background included.
        names: of classes 1, 2, ...; `class 1` and so on if there are none.

    Returns:
        A `highdicom.seg.Segmentation`; its `save_as` writes it.

    Raises:
        DependencyError: if highdicom is not installed.
        SettingsError: if the series cannot be segmented, for example because it names no study.
    """
    require_highdicom()
    with quiet():  # highdicom and pydicom warn with the patient's name
        return _segmentation(labels, affine, files, classes, names)


def _segmentation(
    labels: np.ndarray, affine: np.ndarray, files: Sequence[str], classes: int, names: Sequence[str]
) -> Any:
    import highdicom as hd
    from pydicom.sr.codedict import codes

    series = [pydicom.dcmread(f, stop_before_pixels=True) for f in files]
    for header in series:
        for name in _MAY_BE_EMPTY:
            if name not in header:
                setattr(header, name, None)
    family = codes.cid7162.ArtificialIntelligence
    segments = [
        hd.seg.SegmentDescription(
            segment_number=k,
            segment_label=(names[k - 1] if k <= len(names) else f"class {k}")[:64],
            segmented_property_category=codes.SCT.Tissue,
            segmented_property_type=codes.SCT.Tissue,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=hd.AlgorithmIdentificationSequence("wavespark", family, __version__),
        )
        for k in range(1, classes)
    ]
    try:
        return hd.seg.Segmentation(
            source_images=series,
            pixel_array=np.stack([_on_plane(labels, affine, plane) for plane in _planes(series)]),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=hd.UID(),
            series_number=1000 + int(series[0].get("SeriesNumber") or 0),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="wavespark",
            manufacturer_model_name="wavespark",
            software_versions=__version__,
            device_serial_number="0",
            series_description="wavespark segmentation",
        )
    except Exception as error:  # its text may quote the series
        lacking = isinstance(error, AttributeError) and _ATTRIBUTE.search(str(error))
        why = f"it lacks {lacking[1]}" if lacking else f"highdicom refuses it with {type(error).__name__}"
        raise SettingsError(f"no DICOM Segmentation can be made of this series: {why}") from None


def _planes(series: Sequence[Any]) -> list[tuple[np.ndarray, tuple[int, int]]]:
    """Planes of all slices or frames in order: [4, 4] from (column, row, 0, 1) to RAS mm, and
    (rows, columns)."""
    found = []
    for header in series:
        size = int(header.Rows), int(header.Columns)
        frames = header.get("PerFrameFunctionalGroupsSequence") or [header]
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        for frame in frames:
            place = _group(frame, shared, "PlanePositionSequence").ImagePositionPatient
            axes = np.array(_group(frame, shared, "PlaneOrientationSequence").ImageOrientationPatient, float)
            step = [float(x) for x in _group(frame, shared, "PixelMeasuresSequence").PixelSpacing]
            matrix = np.eye(4)
            matrix[:3, 0], matrix[:3, 1] = axes[:3] * step[1], axes[3:] * step[0]
            matrix[:3, 2], matrix[:3, 3] = 0, [float(x) for x in place]
            found.append((np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix, size))
    return found


def _group(frame: Any, shared: Any, name: str) -> Any:
    """The functional group of a frame, of all frames, or the header of a single slice itself."""
    for groups in (frame, shared):
        if groups is not None and name in groups:
            return groups[name].value[0]
    return frame


def _on_plane(labels: np.ndarray, affine: np.ndarray, plane: tuple[np.ndarray, tuple[int, int]]) -> np.ndarray:
    """The labels at the pixels of a plane, [rows, columns]; 0 beyond the volume."""
    to_ras, (rows, columns) = plane
    there = np.linalg.inv(affine) @ to_ras
    row, column = np.indices((rows, columns))
    index = np.rint(there[:3, 0, None, None] * column + there[:3, 1, None, None] * row + there[:3, 3, None, None])
    size = np.array(labels.shape)[:, None, None]
    inside = ((index >= 0) & (index < size)).all(0)
    i, j, k = np.clip(index, 0, size - 1).astype(np.intp)
    return np.where(inside, labels[i, j, k], 0)
