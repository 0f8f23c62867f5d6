"""Find the place again: InfoNCE between the features of two levels or two views (van den Oord et
al., 2018), with negatives that are truly elsewhere.

Solved at random initialisation in the seed, because query and key shared a projector and a residual
stream with absolute positions. Here each side has a projector of its own, keys come from a slow
copy of the encoder under another mask, and law I14 holds the loss of a fresh model to at least 0.7
ln N.
Legend: Q queries, K keys, P places, N visible cells, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.objectives.reconstruction import single_at_least
from wavespark.shapes import Triple
from wavespark.sparse import VisibleCells


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Places:
    """Features of parts of crops, and where they are."""

    features: Tensor
    """[P, C]."""
    sample: Tensor
    """int64 [P]."""
    tile: Tensor
    """int64 [P, 3]: in units of the part's own size."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Contrast:
    """Sums over the queries that have both a positive and a negative: those of several batches add
    up."""

    total: Tensor
    """Sum of the losses."""
    chance: Tensor
    """Sum of ln N: what the loss is where the features say nothing; N counts the positive and its
    negatives."""
    count: Tensor
    """Queries."""


class Projector(nn.Module):
    """Features to the space in which they are compared; one for each side."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(channels, 2 * width)
        self.norm = nn.LayerNorm(2 * width)
        self.out = nn.Linear(2 * width, width, bias=False)

    def forward(self, features_PC: Tensor) -> Tensor:
        """[P, width]."""
        projected: Tensor = self.out(F.gelu(self.norm(self.hidden(features_PC))))
        return projected


def places_of(level: VisibleCells, tile: Triple = (1, 1, 1)) -> Places:
    """The mean over the visible cells of every tile that has one, in the order of the tiles."""
    gd, gh, gw = (-(-g // t) for g, t in zip(level.grid, tile, strict=True))
    sample = level.cells[:, 0]
    d, h, w = (level.cells[:, axis + 1] // tile[axis] for axis in range(3))
    flat = ((sample * gd + d) * gh + h) * gw + w
    found, row = flat.unique(return_inverse=True)
    cells = single_at_least(level.features).mean((1, 2, 3))
    count = torch.bincount(row, minlength=len(found)).clamp(min=1)
    means = cells.new_zeros(len(found), cells.shape[1]).index_add(0, row, cells) / count[:, None]
    tiles = torch.stack((found // (gh * gw) % gd, found // gw % gh, found % gw), 1)
    return Places(features=means, sample=found // (gd * gh * gw), tile=tiles)


def pairs(queries: Places, keys: Places, patients: Sequence[str]) -> tuple[Tensor, Tensor]:
    """bool [Q, K] twice: the key of the same place, and the keys that are elsewhere.

    Elsewhere is a whole tile or more away in the same crop, or in a crop of another patient. What
    is nearer, and other crops of the same patient (which may show the same place), are neither.

    Args:
        queries: what is to be found.
        keys: among what.
        patients: of each sample.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(patients))}
    patient = torch.tensor([names[p] for p in patients]).to(queries.sample.device, non_blocking=True)
    same_crop = queries.sample[:, None] == keys.sample
    away = (queries.tile[:, None] - keys.tile).abs().amax(-1)
    other_patient = patient[queries.sample][:, None] != patient[keys.sample]
    return same_crop & (away == 0), (same_crop & (away >= 2)) | other_patient


def info_nce(
    queries_QC: Tensor, keys_KC: Tensor, positive_QK: Tensor, negative_QK: Tensor, temperature: float
) -> Contrast:
    """The cross-entropy of finding each query's positive among it and its negatives, by cosine over
    temperature; in fp32 at least.

    Args:
        queries_QC, keys_KC: projected features; they need not be of unit length.
        positive_QK: bool, at most one a row; a query without one is left out, and so is one without
            a negative.
        negative_QK: bool.
        temperature: what cosines are divided by.
    """
    with torch.autocast(queries_QC.device.type, enabled=False):
        cosine = F.normalize(single_at_least(queries_QC), dim=1) @ F.normalize(single_at_least(keys_KC), dim=1).T
        usable = positive_QK.any(1) & negative_QK.any(1)
        among = (positive_QK | negative_QK) & usable[:, None]
        # Rows without a pair are scored on all keys and then left out: a row of nothing but -inf
        # has no gradient.
        logits = (cosine / temperature).masked_fill(~(among | ~usable[:, None]), -torch.inf)
        target = positive_QK.to(torch.int8).argmax(1)
        losses = F.cross_entropy(logits, target, reduction="none") if len(logits) else logits.sum(1)
        number = among.sum(1).clamp(min=1).to(losses.dtype)
        return Contrast(
            total=losses.where(usable, 0).sum(), chance=number.log().where(usable, 0).sum(), count=usable.sum()
        )
