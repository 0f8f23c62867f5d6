"""Which patients are held out: by a hash of what they are, so that added data never moves anyone to
the other side."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar


class HasPatient(Protocol):
    """Anything with a patient and a content hash, such as a `StoredVolume`."""

    @property
    def patient(self) -> str: ...
    @property
    def content(self) -> str: ...


V = TypeVar("V", bound=HasPatient)


def held_out(
    volumes: Iterable[V], fraction: float, seed: int = 0, known: Mapping[str, bool] | None = None
) -> tuple[list[V], list[V]]:
    """Training and held-out volumes; no patient is on both sides, nor two copies of the same
    volume.

    Patients whose volumes have equal content are one patient here. Whether one is held out depends
    on its smallest content hash and the seed alone: not on the store's secret, on the order, nor on
    other patients. A patient who gains a volume can move, unless `known` says where the others
    were.

    Args:
        volumes: what to split.
        fraction: expected share of patients to hold out, from 0 to 1.
        seed: another seed, another split.
        known: content hash -> was it held out, from an earlier split. Patients stay where they
            were; one who was on both sides is training data.

    Returns:
        (training, held out), in the given order.

    Raises:
        ValueError: if the fraction is not from 0 to 1.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction must be from 0 to 1, got {fraction}")
    volumes = list(volumes)
    train: list[V] = []
    out: list[V] = []
    keys = _group_keys(volumes)
    sides: dict[str, bool] = {}
    for volume, key in zip(volumes, keys, strict=True):
        if known and volume.content in known:
            sides[key] = known[volume.content] and sides.get(key, True)
    for volume, key in zip(volumes, keys, strict=True):
        (out if sides.get(key, _share(seed, key) < fraction) else train).append(volume)
    return train, out


def _group_keys(volumes: Sequence[HasPatient]) -> list[str]:
    """For each volume the smallest content hash among all volumes that are linked to it by patient
    or by content."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for v in volumes:
        parent[root(f"patient {v.patient}")] = root(f"content {v.content}")
    smallest: dict[str, str] = {}
    for v in volumes:
        group = root(f"content {v.content}")
        smallest[group] = min(v.content, smallest.get(group, v.content))
    return [smallest[root(f"content {v.content}")] for v in volumes]


def _share(seed: int, key: str) -> float:
    digest = hashlib.blake2b(f"{seed} {key}".encode(), digest_size=8, person=b"held out").digest()
    return int.from_bytes(digest, "big") / 2**64
