"""Which voxels are never trained on: whole patients where there are enough, else a slab of every volume."""

from collections.abc import Iterable
from dataclasses import dataclass

from wavespark.errors import StoreError
from wavespark.prepare import StoredVolume, held_out
from wavespark.sampling.crops import Region
from wavespark.shapes import Triple

PATIENTS_FOR_A_SPLIT = 10
"""From so many patients on, whole patients are held out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Where training crops and held-out crops may lie; the two never share a voxel, nor a patient where `kind` is `patients`."""

    kind: str
    """`patients` or `region`."""
    training: tuple[Region, ...]
    held_out: tuple[Region, ...]

    @property
    def description(self) -> str:
        """A sentence for people."""
        if self.kind == "patients":
            return f"{len(self.held_out)} volume(s) of patients that are never trained on"
        return f"the anterior slab of {len(self.held_out)} volume(s), which no training crop touches"


def split_store(volumes: Iterable[StoredVolume], crop: Triple, fraction: float, seed: int) -> Split:
    """Held-out patients, or with fewer than `PATIENTS_FOR_A_SPLIT` the most anterior slab, one crop thick, of every volume that is long enough.

    Raises:
        StoreError: if nothing is left to train on or to hold out.
    """
    volumes = list(volumes)
    if len({v.patient for v in volumes}) >= PATIENTS_FOR_A_SPLIT:
        training, outside = held_out(volumes, fraction, seed)
        if training and outside:
            return Split(kind="patients", training=tuple(map(_whole, training)), held_out=tuple(map(_whole, outside)))
    train: list[Region] = []
    out: list[Region] = []
    for v in volumes:
        d, h, w = v.size
        if h >= 2 * crop[1]:
            train.append(Region(volume=v.id, start=(0, 0, 0), size=(d, h - crop[1], w)))
            out.append(Region(volume=v.id, start=(0, h - crop[1], 0), size=(d, crop[1], w)))
        else:
            train.append(_whole(v))
    if not out:
        raise StoreError(
            f"no volume is at least {2 * crop[1]} voxels long from back to front, so nothing can be held out to measure on: "
            "use a smaller crop (data.crop=...) or more patients"
        )
    return Split(kind="region", training=tuple(train), held_out=tuple(out))


def _whole(volume: StoredVolume) -> Region:
    return Region(volume=volume.id, start=(0, 0, 0), size=volume.size)
