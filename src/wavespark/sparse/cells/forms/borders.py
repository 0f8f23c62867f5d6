"""Borders of visible cells: the faces, edges and corners over which a kernel of 3 reaches from one
into another.

Axes: N cells, M cells with a visible neighbour in one direction, L tokens along an edge, P touching
tokens, K directions, T taps, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from itertools import product as combinations

import torch
from torch import Tensor

from wavespark.shapes import Triple, product
from wavespark.sparse.cells.layout import CellLayout

_TOWARDS: tuple[Triple, ...] = tuple((x, y, z) for x, y, z in combinations((-1, 0, 1), repeat=3))
_KINDS = tuple(
    tuple(d for d in _TOWARDS if tuple(map(abs, d)) == axes)
    for axes in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
)
"""Directions along the same axes, the opposite of each at the mirrored place: three kinds of faces,
three of edges, the corners."""
_IN_ORDER = tuple(d for kind in _KINDS for d in kind)
_EDGES, _CORNERS = slice(3, 6), slice(6, 7)
_ALL = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """Both directions of one axis."""

    towards: tuple[Triple, ...]
    span: tuple[int, int, int]
    """Places among all touching tokens: begin of the first direction, begin of the second, end."""
    extent: tuple[int, int]
    """Tokens of a face, h x w."""

    def images(self, tokens: Tensor) -> list[Tensor]:
        """[M, C, h, w] of each direction, channels last: views of touching tokens [P, C]."""
        shape = (-1, *self.extent, tokens.shape[1])
        return [tokens[begin:end].view(shape).movedim(-1, 1) for begin, end in pairwise(self.span)]

    def taps(self, weight: Tensor) -> list[Tensor]:
        """[C_out, C, 3, 3] of each direction, views: the part of a weight [C_out, C, 3, 3, 3] that
        reaches over."""
        return [weight[(_ALL, _ALL, *(_ALL if d == 0 else 1 + d for d in towards))] for towards in self.towards]


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """All edges, or all corners: what their tokens read is a row of T tokens, what they receive one
    matrix product for each direction."""

    columns: Tensor
    """int64 [K * P * T]: which of the touching tokens is read, the number of them where nothing is;
    directions are filled up to the same P."""
    rows: Tensor
    """int64: which of the K * P are real, direction by direction."""
    kernel: Tensor
    """int64 [K * T]: which of the 27 taps each direction has."""
    kinds: int
    directions: int

    @property
    def num_taps(self) -> int:
        """3 along an edge, 1 at a corner."""
        return len(self.kernel) // self.directions

    def read(self, tokens: Tensor) -> Tensor:
        """[K, P, T * C] of touching tokens [P + 1, C], the last of which is zero."""
        return tokens.index_select(0, self.columns).view(self.directions, -1, self.num_taps * tokens.shape[1])

    def opposite(self, read: Tensor) -> Tensor:
        """[K, P, C]: of what `read` gave, the tokens themselves, where each direction is touched
        and not where it touches."""
        of_kinds = read.view(self.kinds, -1, read.shape[1], self.num_taps, read.shape[2] // self.num_taps)
        return of_kinds[:, :, :, self.num_taps // 2].flip(1).flatten(0, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Borders:
    """All places where visible cells of a layout touch."""

    theirs: Tensor
    """int64 [P]: the tokens that touch, in the flattened features: those of faces, edges, corners,
    direction by direction, cell by cell."""
    ours: Tensor
    """int64 [P]: the tokens that they touch."""
    faces: tuple[Faces, ...]
    lines: tuple[Lines, ...]

    def tokens(self, features: Tensor) -> Tensor:
        """[P + 1, C]: the tokens of features [N, b, b, b, C] that touch, and zeros."""
        channels, count = features.shape[-1], len(self.theirs)
        if torch.is_grad_enabled():
            rows = features.view(-1, channels).index_select(0, self.theirs)
            return torch.cat((rows, rows.new_zeros(1, channels)))
        found = features.new_empty(count + 1, channels)
        torch.index_select(features.view(-1, channels), 0, self.theirs, out=found[:count])
        found[count:] = 0
        return found


def borders(layout: CellLayout, block: Triple) -> Borders:
    """The borders of cells of `block` tokens, found once for a layout; an accelerator would have to
    be waited for."""
    return layout.cached(("borders", block), lambda: _borders(layout, block))


def _borders(layout: CellLayout, block: Triple) -> Borders:
    counts, cells = layout.cached("directions", lambda: _directions(layout))
    device = cells.device
    corner = _corner_tokens(block).repeat_interleave(torch.tensor(counts), 1).to(device, non_blocking=True)
    first = cells * product(block) + corner
    found, sizes = [], []
    begin, direction = 0, 0
    for kind, inner in zip(_KINDS, _inner_tokens(block), strict=True):
        cells_of = counts[direction : direction + len(kind)]
        end = begin + sum(cells_of)
        found.append((first[:, begin:end, None] + inner.flatten().to(device)).flatten(1))
        sizes.append([n * inner.numel() for n in cells_of])
        begin, direction = end, direction + len(kind)
    ours, theirs = torch.cat(found, 1)
    starts = list(accumulate(map(sum, sizes), initial=0))
    extents = [(inner.shape[0], inner.shape[1]) for inner in _inner_tokens(block)]
    faces = tuple(
        Faces(_KINDS[k], (starts[k], starts[k] + sizes[k][0], starts[k + 1]), extents[k])
        for k in range(3)
        if starts[k + 1] > starts[k]
    )
    lines = (
        _lines(sizes[kinds], [w for _, w in extents[kinds]], starts[kinds.start], len(theirs), kinds, device)
        for kinds in (_EDGES, _CORNERS)
    )
    return Borders(theirs, ours, faces, tuple(found for found in lines if found is not None))


def _directions(layout: CellLayout) -> tuple[list[int], Tensor]:
    """Return the number of cells with a visible neighbour in each direction, and int64 [2, M in
    all]: those cells, their neighbours."""
    beside = layout.neighbours().flatten(1).T  # [27, N]
    beside = beside.index_select(0, torch.tensor([_TOWARDS.index(d) for d in _IN_ORDER]).to(beside.device))
    shown = beside < len(layout)
    return shown.sum(1).tolist(), torch.stack((shown.nonzero()[:, 1], beside[shown]))


@lru_cache(maxsize=64)
def _corner_tokens(block: Triple) -> Tensor:
    """int64 [2, 26]: the first touched token of a cell and the first that touches it, for each
    direction."""
    last = tuple((b - 1) * s for b, s in zip(block, _steps(block), strict=True))
    near = [sum(end for end, t in zip(last, d, strict=True) if t > 0) for d in _IN_ORDER]
    far = [sum(end for end, t in zip(last, d, strict=True) if t < 0) for d in _IN_ORDER]
    return torch.tensor((near, far))


@lru_cache(maxsize=64)
def _inner_tokens(block: Triple) -> tuple[Tensor, ...]:
    """int64 [h, w] for each kind: all tokens of a face, of an edge (h is 1), of a corner (both are
    1), counted from its first."""
    found = []
    for kind in _KINDS:
        along = [(b, s) for b, s, t in zip(block, _steps(block), kind[0], strict=True) if not t]
        (h, h_step), (w, w_step) = ((1, 0), (1, 0), *along)[-2:]
        found.append(torch.arange(h)[:, None] * h_step + torch.arange(w) * w_step)
    return tuple(found)


def _steps(block: Triple) -> Triple:
    return block[1] * block[2], block[2], 1


def _lines(
    sizes: Sequence[Sequence[int]],
    lengths: Sequence[int],
    begin: int,
    nothing: int,
    kinds: slice,
    device: torch.device,
) -> Lines | None:
    """Edges or corners whose touching tokens begin at `begin`; `sizes` are the tokens of each
    direction of each kind, `lengths` those of one line."""
    of_directions = [size for kind in sizes for size in kind]
    width = max(of_directions)
    if not width:
        return None
    starts = torch.tensor(list(accumulate(of_directions[:-1], initial=begin)))[:, None]
    place = torch.arange(width)
    real = place < torch.tensor(of_directions)[:, None]
    read = (place + starts)[..., None]  # [K, P, 1]
    if kinds == _EDGES:
        length = torch.tensor([n for n, kind in zip(lengths, sizes, strict=True) for _ in kind])[:, None, None]
        along = (place[:, None] % length).expand_as(read)
        before, after = (read - 1).where(along > 0, nothing), (read + 1).where(along < length - 1, nothing)
        read = torch.cat((before, read, after), 2)
    return Lines(
        columns=read.where(real[..., None], nothing).flatten().to(device),
        rows=real.flatten().nonzero().flatten().to(device),
        kernel=_kernel(kinds.start).to(device),
        kinds=len(sizes),
        directions=len(of_directions),
    )


@lru_cache(maxsize=2)
def _kernel(kind: int) -> Tensor:
    """int64: the flattened taps that reach over edges or corners, direction by direction."""
    kinds = _KINDS[_EDGES] if kind == _EDGES.start else _KINDS[_CORNERS]
    taps = torch.arange(27).view(3, 3, 3)
    return torch.cat(
        [taps[tuple(_ALL if d == 0 else 1 + d for d in towards)].flatten() for kind in kinds for towards in kind]
    )
