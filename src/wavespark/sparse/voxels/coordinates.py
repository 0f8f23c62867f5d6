"""The sites of a sparse value, checked once, and everything that is looked up from them.

Axes: N active sites, K kernel offsets, D H W grid. A value of stride s has its sites at multiples
of s; divided by s they are *lattice* positions. Coordinates are shared by all values on the same
sites and keep what was derived from them, so that nothing needs a global cache.
"""

from collections.abc import Callable, Sequence
from functools import cached_property, wraps
from typing import Any, TypeVar, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from wavespark.errors import SitesError
from wavespark.shapes import Triple, product

Derived = TypeVar("Derived")

Lattice = tuple[Tensor, Tensor, Tensor, Tensor]
"""Sample, d, h, w of some positions, int64 [n] each, in units of a stride."""

_TABLE_SLOTS_PER_SITE = 64
_TABLE_SLOTS_ALWAYS = 2**20
_MOST_KEYS = 2**60
_NOWHERE = -(2**60)
"""Stands for "outside" in a sum of three axis terms: one makes any key negative, three still fit in
int64."""
_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _lasting(method: Callable[[Any], Derived]) -> cached_property[Derived]:
    """A cached property whose tensors may be saved for a backward pass, wherever it is first asked
    for."""

    @wraps(method)
    def make(self: object) -> Derived:
        with torch.inference_mode(False), torch.no_grad():
            return method(self)

    return cached_property(make)


class Coordinates:
    """Distinct sites [N, 4] (sample, d, h, w) at multiples of a stride, in the order of their rows.

    Args:
        sites: whole numbers of any integer type; kept as int32.
        stride: distance between neighbouring sites along each axis.
        batch_size: samples in the batch; None takes the largest sample + 1.

    Raises:
        SitesError: naming the row that is duplicate, negative, out of range or off the stride.
    """

    def __init__(self, sites: Tensor, stride: Triple, batch_size: int | None = None) -> None:
        _check_form(sites, stride, batch_size)
        self.batch_size = _check_values(sites, stride, batch_size)
        self.stride = stride
        with torch.inference_mode(False):  # coordinates outlive the mode that they were made in
            # A copy: the caller may write into its own tensor, these were checked.
            self.sites = sites.to(torch.int32, copy=True).contiguous()
        self._kept: dict[object, object] = {}
        self._kept_with: WeakKeyDictionary[Coordinates, dict[object, object]] = WeakKeyDictionary()
        if len(self):
            self._check_distinct()

    @classmethod
    def trusted(cls, sites: Tensor, stride: Triple, batch_size: int) -> "Coordinates":
        """Make coordinates from sites that were derived from checked ones; they are not checked
        again."""
        new = cls.__new__(cls)
        with torch.inference_mode(False):
            kept = sites.to(torch.int32).contiguous()
            new.batch_size, new.stride, new.sites = batch_size, stride, kept.clone() if kept.is_inference() else kept
        new._kept, new._kept_with = {}, WeakKeyDictionary()
        return new

    def __reduce__(self) -> tuple[object, ...]:
        return Coordinates.trusted, (self.sites, self.stride, self.batch_size)  # without what was derived

    def __len__(self) -> int:
        return self.sites.shape[0]

    @property
    def device(self) -> torch.device:
        return self.sites.device

    def cached(self, key: object, make: Callable[[], Derived], *, beside: "Coordinates | None" = None) -> Derived:
        """Return what `make` returns, made once; `beside` names other coordinates that it depends
        on and must not hold."""
        place = self._kept if beside is None else self._kept_with.setdefault(beside, {})
        if key not in place:
            with torch.inference_mode(False), torch.no_grad():  # it may be saved for a later backward pass
                place[key] = make()
        return cast("Derived", place[key])

    @_lasting
    def lattice(self) -> Lattice:
        """The sites divided by the stride."""
        s, *axes = (column.long() for column in self.sites.unbind(1))
        d, h, w = (axis if by == 1 else axis // by for axis, by in zip(axes, self.stride, strict=True))
        return s, d, h, w

    @_lasting
    def extent(self) -> Triple:
        """Lattice positions along each axis up to the last site."""
        if not len(self):
            return 1, 1, 1
        d, h, w = torch.stack([axis.max() for axis in self.lattice[1:]]).add(1).tolist()
        _check_extent((d, h, w), self.batch_size)
        return d, h, w

    @_lasting
    def keys(self) -> Tensor:
        """int64 [N]: position of each site in the flattened grid [batch, *extent]."""
        return flatten(self.lattice, self.extent)

    @_lasting
    def order(self) -> Tensor:
        """int64 [N]: rows in lexicographic order of their sites."""
        return self.keys.argsort()

    @_lasting
    def _sorted_keys(self) -> Tensor:
        return self.keys[self.order]

    @_lasting
    def _table(self) -> Tensor | None:
        """int32 [1 + grid]: the row of each key, shifted by one so that slot 0 is nowhere; None if
        too large."""
        slots = self.batch_size * product(self.extent)
        if slots > max(_TABLE_SLOTS_ALWAYS, _TABLE_SLOTS_PER_SITE * len(self)):
            return None
        table = torch.full((slots + 1,), len(self), dtype=torch.int32, device=self.device)
        table[self.keys + 1] = torch.arange(len(self), dtype=torch.int32, device=self.device)
        return table

    def _rows(self, keys: Tensor) -> Tensor:
        """int32: the row of each key, N where there is none; negative keys are nowhere."""
        if self._table is not None:
            return self._table[keys.clamp(min=-1).add_(1)]
        found = torch.searchsorted(self._sorted_keys, keys).clamp_(max=len(self) - 1)
        hit = self._sorted_keys[found] == keys
        return self.order[found].where(hit, len(self)).int()

    def find(self, lattice: Lattice, offsets: Sequence[Triple] = ((0, 0, 0),)) -> Tensor:
        """int32 [n, K]: the row of the site at each position plus each offset, N where none is
        active."""
        sample, *axes = lattice
        _, eh, ew = self.extent
        terms: list[dict[int, Tensor]] = []
        for i, (axis, extent, step) in enumerate(zip(axes, self.extent, (eh * ew, ew, 1), strict=True)):
            moved = {move: axis + move for move in sorted({offset[i] for offset in offsets})}
            terms.append({move: (at * step).where((at >= 0) & (at < extent), _NOWHERE) for move, at in moved.items()})
        first = sample * product(self.extent)
        terms[0] = {move: term + first for move, term in terms[0].items()}
        rows = torch.empty(sample.shape[0], len(offsets), dtype=torch.int32, device=self.device)
        for k, (d, h, w) in enumerate(offsets):
            rows[:, k] = self._rows(terms[0][d] + terms[1][h] + terms[2][w])
        return rows

    def same_as(self, other: "Coordinates") -> bool:
        """Return True if both hold the same sites in the same rows."""
        return self is other or (
            self.stride == other.stride and self.batch_size == other.batch_size and torch.equal(self.sites, other.sites)
        )

    @_lasting
    def by_sample(self) -> tuple[Tensor | None, list[int]]:
        """Rows sorted by sample (None where they already are) and how many each sample has."""
        samples = self.sites[:, 0].long()
        counts = torch.bincount(samples, minlength=self.batch_size).tolist()
        in_order = bool((samples[1:] >= samples[:-1]).all())
        return None if in_order else samples.argsort(stable=True), counts

    def coarser(self, by: Triple) -> "Coordinates":
        """Return the sites of a strided operation in lexicographic order: active where any site of
        the cell of `by` positions is."""
        return self if by == (1, 1, 1) else self.cached(("coarser", by), lambda: self._coarser(by))

    def _coarser(self, by: Triple) -> "Coordinates":
        s, *axes = self.lattice
        d, h, w = (axis // b for axis, b in zip(axes, by, strict=True))
        ed, eh, ew = (-(-e // b) for e, b in zip(self.extent, by, strict=True))
        return _from_keys(
            flatten((s, d, h, w), (ed, eh, ew)).unique(), (ed, eh, ew), _times(self.stride, by), self.batch_size
        )

    def children(self, by: Triple) -> "Coordinates":
        """Return all sites of the finer lattice inside each site: row n has its children at rows n
        * k .. (n + 1) * k - 1.

        Raises:
            SitesError: if the stride is not a multiple of `by`.
        """
        if any(s % b for s, b in zip(self.stride, by, strict=True)):
            raise SitesError(
                f"sites of stride {self.stride} have no children {by} times finer: the stride must be a multiple of it"
            )
        return self if by == (1, 1, 1) else self.cached(("children", by), lambda: self._children(by))

    def _children(self, by: Triple) -> "Coordinates":
        reach = [e * s for e, s in zip(self.extent, self.stride, strict=True)]
        if max(reach) > 2**31:
            raise SitesError(
                f"the children of sites that reach {tuple(reach)} do not fit in int32. Shift them towards zero"
            )
        d, h, w = (s // b for s, b in zip(self.stride, by, strict=True))
        steps = [torch.arange(b, dtype=torch.int32, device=self.device) * s for b, s in zip(by, (d, h, w), strict=True)]
        inner = torch.cartesian_prod(*steps)
        sites = torch.cat((self.sites.new_zeros(len(inner), 1), inner), 1) + self.sites[:, None]
        return Coordinates.trusted(sites.flatten(0, 1), (d, h, w), self.batch_size)

    def union(self, other: "Coordinates") -> "Coordinates":
        """Return the sites of either, in lexicographic order.

        Raises:
            SitesError: if stride or batch size differ.
        """
        if self.stride != other.stride or self.batch_size != other.batch_size:
            raise SitesError(
                f"values of stride {self.stride}, batch {self.batch_size} and of stride {other.stride}, "
                f"batch {other.batch_size} do not lie on one lattice"
            )
        d, h, w = (max(a, b) for a, b in zip(self.extent, other.extent, strict=True))
        _check_extent((d, h, w), self.batch_size)
        keys = torch.cat([flatten(c.lattice, (d, h, w)) for c in (self, other)]).unique()
        return _from_keys(keys, (d, h, w), self.stride, self.batch_size)

    def select(self, rows: Tensor) -> "Coordinates":
        """Return the sites of some rows (int64)."""
        return Coordinates.trusted(self.sites[rows], self.stride, self.batch_size)

    def to(self, device: torch.device) -> "Coordinates":
        """Return the same sites on another device."""
        return (
            self if self.device == device else Coordinates.trusted(self.sites.to(device), self.stride, self.batch_size)
        )

    def _check_distinct(self) -> None:
        if self._table is not None:
            lost = self._table[self.keys + 1] != torch.arange(len(self), device=self.device)
            distinct = not bool(lost.any())
        else:
            distinct = not bool((self._sorted_keys[1:] == self._sorted_keys[:-1]).any())
        if distinct:
            return
        order = self.keys.argsort(stable=True)
        same = self.keys[order][1:] == self.keys[order][:-1]
        first, second = order[:-1][same], order[1:][same]
        row = int(second.argmin())
        raise SitesError(
            f"row {int(second[row])} of sites repeats row {int(first[row])}: "
            f"{self.sites[first[row]].tolist()} (sample, d, h, w). "
            f"Every site may occur once; {len(second)} row(s) repeat another"
        )


def _check_extent(extent: Triple, batch_size: int) -> None:
    if batch_size * product(extent) > _MOST_KEYS:
        raise SitesError(
            f"sites reach {extent} in a batch of {batch_size}: more positions than 2^60. Shift them towards zero"
        )


def flatten(lattice: Lattice, extent: Triple) -> Tensor:
    """int64 [n]: position in the flattened grid [batch, *extent]."""
    s, d, h, w = lattice
    return ((s * extent[0] + d) * extent[1] + h) * extent[2] + w


def _from_keys(keys: Tensor, extent: Triple, stride: Triple, batch_size: int) -> Coordinates:
    d, h, w = extent
    axes = (keys // (d * h * w), keys // (h * w) % d * stride[0], keys // w % h * stride[1], keys % w * stride[2])
    return Coordinates.trusted(torch.stack(axes, 1), stride, batch_size)


def _times(a: Triple, b: Triple) -> Triple:
    d, h, w = (x * y for x, y in zip(a, b, strict=True))
    return d, h, w


def _check_form(sites: Tensor, stride: Triple, batch_size: int | None) -> None:
    if sites.ndim != 2 or sites.shape[1] != 4:
        raise SitesError(f"sites must be [N, 4] (sample, d, h, w), got shape {tuple(sites.shape)}")
    if sites.dtype not in _INTEGERS:
        raise SitesError(
            f"sites must be whole numbers (int32), got {sites.dtype}: "
            f"row 0 is {sites[0].tolist() if len(sites) else 'absent'}"
        )
    if min(stride) < 1:
        raise SitesError(f"the stride must be at least 1, got {stride}")
    if batch_size is None and not len(sites):
        raise SitesError("there are no sites to tell the batch size from: pass batch_size=")
    if batch_size is not None and batch_size < 1:
        raise SitesError(f"batch_size must be at least 1, got {batch_size}")


def _check_values(sites: Tensor, stride: Triple, batch_size: int | None) -> int:
    """Return the batch size; check that every row is inside the batch, not negative, within int32
    and on the lattice."""
    if not len(sites):
        return batch_size or 1
    sites = sites.long()  # a comparison with 2^31 would wrap around in int32
    samples = int(sites[:, 0].max()) + 1 if batch_size is None else batch_size
    step = torch.tensor((1, *stride), device=sites.device)
    outside = sites[:, 0] >= samples
    bad = (sites < 0).any(1) | outside | (sites >= 2**31).any(1) | (sites % step != 0).any(1)
    if not bool(bad.any()):
        return samples
    row = int(bad.int().argmax())
    site = sites[row].tolist()
    if min(site) < 0:
        why = "is negative"
    elif site[0] >= samples:
        why = f"is of sample {site[0]}, but the batch has {samples}"
    elif max(site) >= 2**31:
        why = "does not fit in int32"
    else:
        why = f"is not at a multiple of the stride {stride}"
    raise SitesError(f"row {row} of sites, {site} (sample, d, h, w), {why}; {int(bad.sum())} row(s) are so")
