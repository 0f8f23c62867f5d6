"""Where visible cells touch: the faces, edges and corners over which a kernel of 3 reaches from one into another.

Axes: N cells, M cells with a visible neighbour in one direction, L tokens along an edge, P edge or corner tokens.
"""

from dataclasses import dataclass
from itertools import product as combinations
from typing import Any

import torch
from torch import Tensor

from wavespark.shapes import Triple
from wavespark.sparse.cells import CellLayout

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
    for free in ((_ALL, 0, 0), (0, _ALL, 0), (0, 0, _ALL), (0, 0, 0)):
        chosen = tuple(d for d in found if [t == 0 for t in d.towards] == [f == _ALL for f in free])
        if chosen:
            lines.append(_lines(chosen, len(layout), block))
    return Borders(faces, tuple(lines))


def _directions(layout: CellLayout) -> tuple[Direction, ...]:
    beside = layout.neighbours()
    found = []
    for d, h, w in combinations((-1, 0, 1), repeat=3):
        rows = beside[:, d + 1, h + 1, w + 1]
        ours = (rows < len(layout)).nonzero().flatten()
        if (d, h, w) != (0, 0, 0) and len(ours):
            found.append(Direction((d, h, w), ours, rows[ours]))
    return tuple(found)


def _lines(directions: tuple[Direction, ...], cells: int, block: Triple) -> Lines:
    tokens = torch.arange(cells * block[0] * block[1] * block[2], device=directions[0].ours.device).view(cells, *block)
    ours = [tokens[d.near][d.ours].flatten() for d in directions]
    theirs = [tokens[d.far][d.theirs].flatten() for d in directions]
    parts, start = [], 0
    for part in ours:
        parts.append(slice(start, start + len(part)))
        start += len(part)
    length = len(ours[0]) // len(directions[0].ours)
    return Lines(directions, torch.cat(ours), torch.cat(theirs), length, tuple(parts))
