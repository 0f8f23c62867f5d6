"""Where visible cells touch: the faces, edges and corners over which a kernel of 3 reaches from one into another.

Axes: N cells, M cells with a visible neighbour in one direction, L tokens along an edge, P edge or corner tokens.
"""

from dataclasses import dataclass
from itertools import accumulate
from itertools import product as combinations
from typing import Any

import torch
from torch import Tensor

from wavespark.shapes import Triple, product
from wavespark.sparse.cell_layout import CellLayout

_ALL = slice(None)


@dataclass(frozen=True, slots=True, eq=False)
class Direction:
    """Cells with a visible neighbour in one direction, each with that neighbour."""

    towards: Triple
    """-1, 0 or 1 along each axis: where the neighbour lies."""
    ours: Tensor
    """int64 [M]: rows of the cells."""
    theirs: Tensor
    """int64 [M]: rows of their neighbours."""

    @property
    def near(self) -> tuple[Any, ...]:
        """The tokens of a cell that are touched."""
        return (_ALL, *(_ALL if d == 0 else 0 if d < 0 else -1 for d in self.towards))

    @property
    def far(self) -> tuple[Any, ...]:
        """The tokens of the neighbour that touch: its last ones if it lies below, its first ones if above."""
        return (_ALL, *(_ALL if d == 0 else -1 if d < 0 else 0 for d in self.towards))

    @property
    def taps(self) -> tuple[Any, ...]:
        """The part of a weight [C_out, C, 3, 3, 3] that reaches over."""
        return (_ALL, _ALL, *(_ALL if d == 0 else 1 + d for d in self.towards))


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """Directions whose touching tokens are lines along one axis, or single tokens at corners: handled in one go."""

    directions: tuple[Direction, ...]
    ours: Tensor
    """int64 [P]: touched tokens in the flattened features, direction by direction."""
    theirs: Tensor
    """int64 [P]: the tokens that touch them."""
    length: int
    """Tokens in a line, L; 1 at corners."""
    parts: tuple[slice, ...]
    """Which of the P tokens are of each direction."""

    def columns(self, flat: Tensor) -> Tensor:
        """[P, T * C]: what the taps of a weight read from the neighbour, zero beyond the ends of a line; 1 tap at corners, else 3."""
        sides = flat.index_select(0, self.theirs)
        if 0 not in self.directions[0].towards:
            return sides
        sides = sides.view(-1, self.length, flat.shape[1])
        columns = sides.new_zeros(*sides.shape[:2], 3, flat.shape[1])
        columns[:, 1:, 0], columns[:, :, 1], columns[:, :-1, 2] = sides[:, :-1], sides, sides[:, 1:]
        return columns.view(-1, 3 * flat.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class Borders:
    """All places where the visible cells of a layout touch."""

    faces: tuple[Direction, ...]
    lines: tuple[Lines, ...]


def borders(layout: CellLayout, block: Triple) -> Borders:
    """The borders of cells of `block` tokens, found once for a layout; an accelerator would have to be waited for."""
    return layout.kept(("borders", block), lambda: _borders(layout, block))


def _borders(layout: CellLayout, block: Triple) -> Borders:
    found = layout.kept("directions", lambda: _directions(layout))
    faces = tuple(d for d in found if d.towards.count(0) == 2)
    lines = []
    for free in (0, 1, 2, None):  # the axis along which an edge runs; None for corners
        chosen = tuple(
            d for d in found if [axis for axis in range(3) if not d.towards[axis]] == [free][: free is not None]
        )
        if chosen:
            lines.append(_lines(chosen, block, free))
    return Borders(faces, tuple(lines))


def _directions(layout: CellLayout) -> tuple[Direction, ...]:
    beside = layout.neighbours().flatten(1).T  # [27, N]
    shown = beside < len(layout)
    shown[13] = False  # the cell itself
    counts = shown.sum(1).tolist()
    ours, theirs = shown.nonzero()[:, 1].split(counts), beside[shown].split(counts)
    towards = combinations((-1, 0, 1), repeat=3)
    found = zip(towards, ours, theirs, strict=True)
    return tuple(Direction((d, h, w), o, t) for (d, h, w), o, t in found if len(o))


def _lines(directions: tuple[Direction, ...], block: Triple, free: int | None) -> Lines:
    _, height, width = block
    step = (height * width, width, 1)
    counts = [len(d.ours) for d in directions]
    length, along = (1, 0) if free is None else (block[free], step[free])
    device = directions[0].ours.device
    last = [tuple((b - 1) * s if t else 0 for b, s, t in zip(block, step, d.towards, strict=True)) for d in directions]
    near = [
        sum(end for end, t in zip(ends, d.towards, strict=True) if t > 0)
        for ends, d in zip(last, directions, strict=True)
    ]
    far = [
        sum(end for end, t in zip(ends, d.towards, strict=True) if t < 0)
        for ends, d in zip(last, directions, strict=True)
    ]
    start = torch.tensor((near, far), device=device).repeat_interleave(
        torch.tensor(counts, device=device), 1, output_size=sum(counts)
    )
    cells = torch.stack((torch.cat([d.ours for d in directions]), torch.cat([d.theirs for d in directions])))
    tokens = (cells * product(block) + start)[..., None] + torch.arange(length, device=device) * along
    ours, theirs = tokens.flatten(1)
    parts = tuple(slice((end - n) * length, end * length) for n, end in zip(counts, accumulate(counts), strict=True))
    return Lines(directions, ours, theirs, length, parts)
