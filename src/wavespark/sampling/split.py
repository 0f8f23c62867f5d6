"""Split into training and held-out voxels: by patients if a kind of scan has enough of them, else a
slab of every volume."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from wavespark.errors import StoreError
from wavespark.prepare import StoredVolume, held_out
from wavespark.sampling.crops import Region
from wavespark.shapes import Triple

PATIENTS_FOR_A_SPLIT = 5
"""From so many patients of a modality and contrast on, whole patients are held out."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Regions of training and held-out crops; the two never share a voxel."""

    training: tuple[Region, ...]
    held_out: tuple[Region, ...]

    @property
    def slabs(self) -> int:
        """Volumes that are trained on behind their held-out slab."""
        return len({r.volume for r in self.training} & {r.volume for r in self.held_out})

    def sides(self, volumes: Iterable[StoredVolume]) -> dict[str, bool]:
        """Content of each volume that lies on one side as a whole -> is it held out.

        For a later split, of more volumes.
        """
        train, out = {r.volume for r in self.training}, {r.volume for r in self.held_out}
        return {v.content: v.id in out for v in volumes if (v.id in out) != (v.id in train)}

    @property
    def kind(self) -> str:
        """`patients`, `region`, or `both`."""
        whole = len(self.held_out) - self.slabs
        return "both" if self.slabs and whole else "region" if self.slabs else "patients"

    @property
    def description(self) -> str:
        """A sentence for people."""
        whole = len(self.held_out) - self.slabs
        parts = [f"{whole} volume(s) of patients that are never trained on"] if whole else []
        parts += [f"the anterior slab of {self.slabs} volume(s), which no training crop touches"] if self.slabs else []
        return "; ".join(parts)


def split_store(
    volumes: Iterable[StoredVolume], crop: Triple, fraction: float, seed: int, known: Mapping[str, bool] | None = None
) -> Split:
    """The split; no patient of whom a whole volume is held out is trained on (law I27).

    For each modality and contrast: with at least `PATIENTS_FOR_A_SPLIT` patients, the held-out ones
        among them; else, or if chance held out none of them, the most anterior slab, one crop
        thick, of every volume that is long enough. Where that leaves nothing and a kind has so many
        patients, the smallest larger share of patients that holds out one.

    Args:
        volumes: what to split.
        crop: voxels of a training window.
        fraction: expected share of patients to hold out.
        seed: another seed, another split.
        known: `Split.sides` of an earlier split, whose patients stay where they were.

    Raises:
        StoreError: if nothing is left to train on or to hold out.
    """
    volumes = list(volumes)
    kinds: dict[tuple[str, str | None], list[StoredVolume]] = {}
    for v in volumes:
        kinds.setdefault((v.modality, v.contrast), []).append(v)
    large = [vs for vs in kinds.values() if len({v.patient for v in vs}) >= PATIENTS_FOR_A_SPLIT]
    by_patient = {v.patient for vs in large for v in vs}
    several = [v for v in volumes if v.patient in by_patient]
    _, outside = held_out(several, fraction, seed, known)
    train, out = _sides(kinds.values(), outside, crop)
    while several and not out and not known and 0 < fraction < 1:
        fraction = min(1.0, 1.1 * fraction)
        _, outside = held_out(several, fraction, seed)
        train, out = _sides(kinds.values(), outside, crop)
    if not train:
        raise StoreError("every volume is held out: lower data.held_out_fraction or add patients")
    if not out:
        raise StoreError(
            f"no volume is at least {2 * crop[1]} voxels long from back to front, and no kind of scan has "
            f"{PATIENTS_FOR_A_SPLIT} patients, so nothing can be held out to measure on: use a smaller crop (data.crop=...) or more patients"
        )
    return Split(training=tuple(train), held_out=tuple(out))


def _sides(
    kinds: Iterable[Sequence[StoredVolume]], outside: Sequence[StoredVolume], crop: Triple
) -> tuple[list[Region], list[Region]]:
    """Regions to train on and held-out ones, if the volumes outside are held out whole."""
    never = {v.id for v in outside}
    train: list[Region] = []
    out: list[Region] = []
    for vs in kinds:
        slab = not any(v.id in never for v in vs)
        for v in vs:
            if v.id in never:
                out.append(_whole(v))
            elif slab and v.size[1] >= 2 * crop[1]:
                (d, h, w), border = v.size, v.size[1] - crop[1]
                train.append(Region(volume=v.id, start=(0, 0, 0), size=(d, border, w)))
                out.append(Region(volume=v.id, start=(0, border, 0), size=(d, h - border, w)))
            else:
                train.append(_whole(v))
    return train, out


def _whole(volume: StoredVolume) -> Region:
    return Region(volume=volume.id, start=(0, 0, 0), size=volume.size)
