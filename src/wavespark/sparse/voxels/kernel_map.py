"""Kernel maps: the rows that a convolution or a pooling window reads.

Axes: N rows, K kernel offsets, T offsets that a group of rows uses. A map links a *fine* value to a
*coarse* one (a submanifold operation: a value to itself). Reading downwards (coarse from fine)
every row may use all K offsets. Reading upwards (fine from coarse) a row uses only the offsets of
its parity, so the rows are grouped by parity; with stride 2 that divides the work by eight.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product as combinations

import torch

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, product
from wavespark.sparse.gather_gemm import Group
from wavespark.sparse.voxels.coordinates import Coordinates

_ONE = (1, 1, 1)
_CROWDED = 0.6
"""Share of active neighbours above which reading all K at once is faster than one by one (measured;
both are exact)."""


@dataclass(frozen=True, slots=True, eq=False)
class KernelMap:
    """Both readings of one kernel between a fine and a coarse set of sites."""

    fine: int
    """Number of fine rows."""
    coarse: int
    """Number of coarse rows."""
    taps: int
    """Offsets of the kernel, K."""
    down: tuple[Group, ...]
    """Coarse rows read from fine rows."""
    up: tuple[Group, ...]
    """Fine rows read from coarse rows."""


def kernel_offsets(kernel: Triple, stride: Triple = _ONE, dilation: Triple = _ONE) -> tuple[Triple, ...]:
    """Return the K positions that a kernel reads, relative to its output site, in torch's order.

    An odd kernel is centred (a dense convolution with padding k // 2); an even one must equal its
    stride and reads its own cell.

    Raises:
        ShapeError: if an even kernel differs from the stride.
    """
    axes = []
    for k, s, by in zip(kernel, stride, dilation, strict=True):
        if k < 1 or s < 1 or by < 1:
            raise ShapeError(f"kernel {kernel}, stride {stride} and dilation {dilation} must be at least 1")
        if k % 2 == 0 and k != s:
            raise ShapeError(
                f"an even kernel reads exactly its own cell, so its size must be the stride: "
                f"got kernel {kernel}, stride {stride}"
            )
        first = -(k // 2) if k % 2 else 0
        axes.append([(first + i) * by for i in range(k)])
    return tuple((d, h, w) for d, h, w in combinations(*axes))


@torch.compiler.disable
def submanifold_map(sites: Coordinates, kernel: Triple, dilation: Triple) -> KernelMap:
    """Return the map of an operation that keeps its sites; made once for these coordinates."""
    return sites.cached(("submanifold", kernel, dilation), lambda: _submanifold_map(sites, kernel, dilation))


def _submanifold_map(sites: Coordinates, kernel: Triple, dilation: Triple) -> KernelMap:
    offsets = kernel_offsets(kernel, _ONE, dilation)
    taps = tuple(range(len(offsets)))
    index = sites.find(sites.lattice, offsets)
    active = index < len(sites)
    counts = active.sum(0).tolist()
    if sum(counts) >= _CROWDED * active.numel():
        # An odd kernel is symmetric: the site that is read at offset o reads at -o, which stands at
        # the mirrored
        # position of the kernel.
        return KernelMap(
            len(sites), len(sites), len(taps), (Group(None, taps, index),), (Group(None, taps, index.flip(1)),)
        )
    rows = active.T.nonzero()[:, 1].split(counts)
    reads = index.T[active.T].split(counts)
    down = tuple(Group(r, (k,), i[:, None]) for k, r, i in zip(taps, rows, reads, strict=True) if len(r))
    up = tuple(
        Group(group.index[:, 0].long(), group.offsets, group.rows.int()[:, None])
        for group in down
        if group.rows is not None
    )
    return KernelMap(len(sites), len(sites), len(taps), down, up)


@torch.compiler.disable
def strided_map(fine: Coordinates, coarse: Coordinates, kernel: Triple, stride: Triple) -> KernelMap:
    """Return the map between sites and `stride` times coarser ones; made once for both."""
    return fine.cached((kernel, stride), lambda: _strided_map(fine, coarse, kernel, stride), beside=coarse)


def _strided_map(fine: Coordinates, coarse: Coordinates, kernel: Triple, stride: Triple) -> KernelMap:
    offsets = kernel_offsets(kernel, stride)
    s, *axes = coarse.lattice
    d, h, w = (axis * by for axis, by in zip(axes, stride, strict=True))
    down = Group(None, tuple(range(len(offsets))), fine.find((s, d, h, w), offsets))
    return KernelMap(
        len(fine), len(coarse), len(offsets), (down,), tuple(_parity_groups(fine, coarse, offsets, stride))
    )


def _parity_groups(fine: Coordinates, coarse: Coordinates, offsets: Sequence[Triple], stride: Triple) -> list[Group]:
    s, d, h, w = fine.lattice
    sd, sh, sw = stride
    parity = ((d % sd) * sh + h % sh) * sw + w % sw
    groups = []
    for number, residue in enumerate(combinations(range(sd), range(sh), range(sw))):
        used = [
            k
            for k, o in enumerate(offsets)
            if all((r - x) % by == 0 for r, x, by in zip(residue, o, stride, strict=True))
        ]
        rows = (
            (parity == number).nonzero().flatten()
            if product(stride) > 1
            else torch.arange(len(fine), device=fine.device)
        )
        if not used or not len(rows):
            continue
        own = (s[rows], d[rows] // sd, h[rows] // sh, w[rows] // sw)
        moves: list[Triple] = []
        for k in used:
            md, mh, mw = ((r - x) // by for r, x, by in zip(residue, offsets[k], stride, strict=True))
            moves.append((md, mh, mw))
        groups.append(Group(rows, tuple(used), coarse.find(own, moves)))
    return groups
