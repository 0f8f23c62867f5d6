"""Where visible cells touch: the faces, edges and corners over which a kernel of 3 reaches from one into another.

Axes: N cells, M cells with a visible neighbour in one direction, L tokens along an edge, P touched tokens.
"""

from dataclasses import dataclass
from itertools import product as combinations

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
    """int64 [M]: rows of their neighbours, in the order of the opposite direction's cells."""

    def taps(self, weight: Tensor) -> Tensor:
        """[C_out, C, h, w], a view: the part of a weight [C_out, C, 3, 3, 3] that reaches over; 3 x 3 at faces, 1 x 3 at edges, 1 x 1 at corners."""
        part = weight[(_ALL, _ALL, *(_ALL if d == 0 else 1 + d for d in self.towards))]
        while part.ndim < 4:
            part = part.unsqueeze(2)
        return part


@dataclass(frozen=True, slots=True, eq=False)
class Sides:
    """Directions along the same axes, whose touched tokens are all distinct where a cell has 2 tokens and more along each axis."""

    directions: tuple[Direction, ...]
    """The opposite of each is at the mirrored place."""
    ours: Tensor
    """int64 [P]: touched tokens in the flattened features, direction by direction, cell by cell."""
    theirs: Tensor
    """int64 [P]: the tokens that touch them."""
    extent: tuple[int, int]
    """Tokens of one cell, h x w: of a face; of an edge, 1 x L; of a corner, 1 x 1."""

    def read(self, flat: Tensor) -> tuple[Tensor, ...]:
        """The tokens that touch, of each direction, from features [N * b^3, C].

        Faces are images [M, C, h, w], channels last; edges and corners [M * L, T, C], what each of the T taps reads, zero beyond an edge's ends.
        """
        rows = flat.index_select(0, self.theirs)
        counts = [len(d.ours) for d in self.directions]
        height, width = self.extent
        if self.directions[0].towards.count(0) == 2:
            return rows.view(-1, height, width, rows.shape[1]).movedim(-1, 1).split(counts)
        columns = rows.unsqueeze(1)
        if self.is_edge:
            lines = rows.view(-1, width, rows.shape[1])
            columns = lines.new_zeros(*lines.shape[:2], 3, rows.shape[1])
            columns[:, 1:, 0], columns[:, :, 1], columns[:, :-1, 2] = lines[:, :-1], lines, lines[:, 1:]
            columns = columns.flatten(0, 1)
        return columns.split([count * width for count in counts])

    @property
    def is_edge(self) -> bool:
        """Whether the sides are edges."""
        return self.directions[0].towards.count(0) == 1


Borders = tuple[Sides, ...]
"""All places where the visible cells of a layout touch."""


def borders(layout: CellLayout, block: Triple) -> Borders:
    """The borders of cells of `block` tokens, found once for a layout; an accelerator would have to be waited for."""
    return layout.kept(("borders", block), lambda: _borders(layout, block))


def _borders(layout: CellLayout, block: Triple) -> Borders:
    found = layout.kept("directions", lambda: _directions(layout))
    kinds = dict.fromkeys(tuple(map(abs, d.towards)) for d in found)
    return tuple(_sides(tuple(d for d in found if tuple(map(abs, d.towards)) == kind), block) for kind in kinds)


def _directions(layout: CellLayout) -> tuple[Direction, ...]:
    beside = layout.neighbours().flatten(1).T  # [27, N]
    shown = beside < len(layout)
    shown[13] = False  # the cell itself
    counts = shown.sum(1).tolist()
    ours, theirs = shown.nonzero()[:, 1].split(counts), beside[shown].split(counts)
    towards = combinations((-1, 0, 1), repeat=3)
    found = zip(towards, ours, theirs, strict=True)
    return tuple(Direction((d, h, w), o, t) for (d, h, w), o, t in found if len(o))


def _sides(directions: tuple[Direction, ...], block: Triple) -> Sides:
    device = directions[0].ours.device
    step = (block[1] * block[2], block[2], 1)
    last = tuple((b - 1) * s for b, s in zip(block, step, strict=True))
    near = [sum(end for end, t in zip(last, d.towards, strict=True) if t > 0) for d in directions]
    far = [sum(end for end, t in zip(last, d.towards, strict=True) if t < 0) for d in directions]
    counts = torch.tensor([len(d.ours) for d in directions])
    first = torch.tensor((near, far)).repeat_interleave(counts, 1).to(device, non_blocking=True)
    cells = torch.stack((torch.cat([d.ours for d in directions]), torch.cat([d.theirs for d in directions])))
    along = [(b, s) for b, s, t in zip(block, step, directions[0].towards, strict=True) if not t]
    (h, h_step), (w, w_step) = ((1, 0), (1, 0), *along)[-2:]
    inner = torch.arange(h, device=device)[:, None] * h_step + torch.arange(w, device=device) * w_step
    ours, theirs = ((cells * product(block) + first)[..., None] + inner.flatten()).flatten(1)
    return Sides(directions, ours, theirs, (h, w))
