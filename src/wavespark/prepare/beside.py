"""Attachments of a volume, brought onto its grid: label maps, defaced voxels, marks."""

from dataclasses import dataclass, field, replace

import numpy as np

from wavespark.errors import VolumeError
from wavespark.prepare.labels import resample_labels
from wavespark.shapes import Triple
from wavespark.volumes import Mark, ReadingSettings, Source, Volume, mark_in_mm, read_label_map, source_id

Maps = dict[str, tuple[np.ndarray, np.ndarray]]
"""Label maps by name, each with its affine."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A map that could not be used; its volume is kept."""

    id: str
    path: bytes
    """Private."""
    reason: str
    sentence: str


@dataclass(frozen=True, slots=True)
class Attached:
    """Attachments of a source, as read."""

    maps: Maps = field(default_factory=dict)
    hidden: tuple[np.ndarray, np.ndarray] | None = None
    """bool, True where defaced; affine."""
    marks: tuple[tuple[str, tuple[float, float, float]], ...] = ()
    """Name and RAS mm."""
    left_out: tuple[LeftOut, ...] = ()


def read_beside(source: Source, secret: bytes, settings: ReadingSettings) -> Attached:
    """Everything that belongs to a source; a map that cannot be read is named, not fatal."""
    maps: Maps = {}
    hidden = None
    left_out = []
    named = [*source.beside.labels] + ([] if source.beside.hidden is None else [(None, source.beside.hidden)])
    for name, path in named:
        try:
            values, affine = read_label_map(path, settings)
        except VolumeError as error:
            left_out.append(_left_out(path, secret, error))
            continue
        if name is None:
            hidden = values != 0, affine
        else:
            maps[name] = values, affine
    return Attached(maps, hidden, _places(source.beside.marks), tuple(left_out))


def _left_out(path: bytes, secret: bytes, error: VolumeError) -> LeftOut:
    sentence = f"a label map or mask that belongs to a volume was left out: {error.sentence}"
    return LeftOut(source_id(secret, path), path, error.reason, sentence)


def _places(marks: tuple[Mark, ...]) -> tuple[tuple[str, tuple[float, float, float]], ...]:
    places = [(mark.name, mark_in_mm(mark)) for mark in marks]
    return tuple((name, place) for name, place in places if place is not None)


def without_hidden(volume: Volume, attached: Attached) -> Volume:
    """The volume with its defaced voxels marked as not measured, so that they are neither
    foreground nor scored."""
    if attached.hidden is None:
        return volume
    hidden, affine = attached.hidden
    d, h, w = volume.voxels.shape[1:]
    if hidden.shape != (d, h, w) or not np.allclose(affine, volume.affine, atol=1e-3):
        hidden = resample_labels(hidden.view(np.uint8), affine, (d, h, w), volume.affine) > 0
    valid = ~hidden if volume.valid is None else volume.valid & ~hidden
    return replace(volume, valid=valid)


def labels_on(
    size: Triple, grid: np.ndarray, source: Source, attached: Attached, secret: bytes
) -> tuple[dict[str, np.ndarray], list[LeftOut]]:
    """Label maps on a stored grid; a map of which nothing falls onto the volume is left out."""
    labels: dict[str, np.ndarray] = {}
    left_out = []
    paths = dict(source.beside.labels)
    for name, (values, affine) in attached.maps.items():
        try:
            made = resample_labels(values, affine, size, grid)
            if values.any() and not made.any():
                raise VolumeError("label_outside", "none of its labels lies in the volume: its affine is another one's")
            labels[name] = made
        except VolumeError as error:
            left_out.append(_left_out(paths[name], secret, error))
    return labels, left_out
