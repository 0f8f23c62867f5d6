"""Classification of volumes: labels that may be on together (RSNA locations), or classes of which
one is right.

Labels with a side in their name change places when a window is mirrored. Where points are known,
the attention is trained to lie on the cells that hold them; where a segmentation is known
(vessels), each cell learns whether it holds any of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.heads import CellClassifier, pooled
from wavespark.downstream.items import LABELS, Labelled
from wavespark.downstream.labels import LabelTable, quoted
from wavespark.downstream.losses import known_binary
from wavespark.downstream.memory import Readable
from wavespark.errors import SettingsError
from wavespark.models import Encoder
from wavespark.prepare import Store
from wavespark.sampling.lateral import Sides
from wavespark.sampling.scene import Scene
from wavespark.shapes import Triple, ceil_div

_BINARY = frozenset({"0", "1", "0.0", "1.0", ""})
"""Texts of a column of labels."""
_POINTS_WEIGHT = 0.1
_VESSEL_WEIGHT = 0.2


@dataclass(frozen=True, kw_only=True, slots=True)
class Classify:
    """The task of predicting labels of a volume."""

    names: tuple[str, ...]
    exclusive: bool
    """True if exactly one name is right (softmax); False if each is on or off by itself."""
    prior: tuple[float, ...]
    """Share of the labelled volumes with each label."""
    settings: FinetuneSettings
    kind: ClassVar[str] = "classify"

    @property
    def main(self) -> str:
        """Main figure of a comparison."""
        return "accuracy" if self.exclusive else "auc"

    def describe(self) -> dict[str, Any]:
        """Plain values from which the task can be rebuilt."""
        return {"kind": self.kind, "names": list(self.names), "exclusive": self.exclusive, "prior": list(self.prior)}

    def build(self, encoder: Encoder) -> nn.Module:
        """Build the network; its opinions start at the prior."""
        model = CellClassifier(encoder, len(self.names))
        prior = torch.tensor(self.prior).clamp(0.01, 0.99)
        with torch.no_grad():
            model.opinion.bias.copy_(prior.log() if self.exclusive else prior.logit())
        return model

    def start(self, model: nn.Module, items: Sequence[Labelled]) -> None:
        """Nothing: the network begins at the prior of the task."""

    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor:
        """Loss of a batch of windows."""
        network = cast(CellClassifier, model)
        device, cell = next(model.parameters()).device, network.encoder.cell
        voxels = torch.from_numpy(np.stack([s.voxels for s in scenes])).to(device)
        visible = torch.from_numpy(np.stack([visible_cells(s.maps["foreground"], cell) for s in scenes]))
        level, known = network.cells(voxels, visible, modality)
        opinion, weight = network.votes(known)
        counts = level.layout.counts
        logits = torch.stack([pooled(o, w) for o, w in zip(opinion.split(counts), weight.split(counts), strict=True)])
        table = np.stack([self._targets(s, i) for s, i in zip(scenes, items, strict=True)])
        targets = torch.from_numpy(table).to(device)
        right = F.cross_entropy(logits, targets.argmax(1)) if self.exclusive else None
        total = known_binary(logits, targets, self._weights().to(device)) if right is None else right
        for (first, last), scene in zip(pairwise((0, *np.cumsum(counts).tolist())), scenes, strict=True):
            cells, own = level.layout.cells[first:last, 1:], slice(first, last)
            total = total + _extras(scene, cells, weight[own], known[own], network) / len(scenes)
        return total

    def _targets(self, scene: Scene, item: Labelled) -> np.ndarray:
        """Labels of a window: those of its volume, sides exchanged if the window is mirrored."""
        targets = item.targets if item.targets is not None else np.full(len(self.names), np.nan, np.float32)
        return targets[Sides.columns(self.names)] if scene.mirrored else targets

    def _weights(self) -> Tensor:
        """Weight of positives: rare ones count up to ten times."""
        prior = torch.tensor(self.prior).clamp(1e-3, 1 - 1e-3)
        return ((1 - prior) / prior).sqrt().clamp(1, 10)

    @torch.inference_mode()
    def predict(self, model: nn.Module, volume: Readable) -> np.ndarray:
        """Probabilities, float64 [L], from all cells with foreground of the volume."""
        network = cast(CellClassifier, model.eval())
        device = next(model.parameters()).device
        voxels, foreground = torch.from_numpy(volume.read()), volume.read_foreground()
        opinions, weights = [], []
        for box in tiles(volume.size, self.settings.data.crop, network.encoder.cell):
            if not foreground[box].any():
                continue
            visible = torch.from_numpy(visible_cells(foreground[box], network.encoder.cell))[None]
            _, known = network.cells(voxels[(slice(None), *box)][None].to(device), visible, volume.modality)
            opinion, weight = network.votes(known)
            opinions.append(opinion)
            weights.append(weight)
        logits = pooled(torch.cat(opinions), torch.cat(weights)).double()
        return (logits.softmax(0) if self.exclusive else logits.sigmoid()).cpu().numpy()

    def scores(self, found: np.ndarray, item: Labelled) -> dict[str, float]:
        """Figures of one volume: the log loss of its known labels; for exclusive classes also 1 if
        the right one is the likeliest."""
        targets = item.targets if item.targets is not None else np.full(len(self.names), np.nan)
        known = np.isfinite(targets)
        chance = np.where(targets > 0.5, found, 1 - found)[known].clip(1e-6, 1)
        scores = {"log_loss": float(-np.log(chance).mean()) if known.any() else float("nan")}
        if self.exclusive:
            scores["accuracy"] = float(found.argmax() == targets.argmax())
        return scores


def _extras(scene: Scene, cells_N3: Tensor, weight_NL: Tensor, known_NC: Tensor, network: CellClassifier) -> Tensor:
    """Loss terms for single cells, from points and vessel maps."""
    total = known_NC.sum() * 0
    cell = network.encoder.cell
    if len(scene.points):
        place = torch.from_numpy(np.floor(scene.points / np.array(cell)).astype(np.int64)).to(cells_N3.device)
        hit = (cells_N3[:, None] == place[None]).all(-1).any(1)
        if hit.any():  # the attention must lie on the cells of the points
            chance = weight_NL.float().log_softmax(0)
            total = total - _POINTS_WEIGHT * torch.logsumexp(chance[hit], 0).mean()
    if LABELS in scene.maps:
        vessel = torch.from_numpy(any_in_cells(scene.maps[LABELS] > 0, cell)).to(cells_N3.device)
        logits = network.vessel(known_NC)[:, 0].float()
        truth = vessel[tuple(cells_N3.T)].float()
        total = total + _VESSEL_WEIGHT * F.binary_cross_entropy_with_logits(logits, truth)
    return total


def tiles(size: Triple, crop: Triple, cell: Triple) -> Iterator[tuple[slice, slice, slice]]:
    """Boxes of whole cells, at most as large as the crop, that cover a volume and do not
    overlap."""
    d, h, w = (c * max(1, n // c) for n, c in zip(crop, cell, strict=True))
    for a in range(0, size[0], d):
        for b in range(0, size[1], h):
            for c in range(0, size[2], w):
                yield slice(a, a + d), slice(b, b + h), slice(c, c + w)


def visible_cells(foreground_DHW: np.ndarray, cell: Sequence[int]) -> np.ndarray:
    """Find the cells with foreground, bool on the cell grid; all cells where there is none."""
    visible = any_in_cells(foreground_DHW, cell)
    return visible if visible.any() else np.ones_like(visible)


def any_in_cells(mask_DHW: np.ndarray, cell: Sequence[int]) -> np.ndarray:
    """Find the cells with a True voxel, bool on the cell grid."""
    grid = ceil_div(mask_DHW.shape, cell)
    padded = np.pad(mask_DHW, [(0, g * c - n) for g, c, n in zip(grid, cell, mask_DHW.shape, strict=True)])
    d, h, w = grid
    return np.asarray(padded.reshape(d, cell[0], h, cell[1], w, cell[2]).any((1, 3, 5)))


def with_targets(
    table: LabelTable, store: Store, columns: Sequence[str]
) -> tuple[list[Labelled], tuple[str, ...], bool]:
    """Read targets from a table.

    Columns of 0 and 1 (empty = unknown) are labels; a single column of words is a set of classes.

    Returns:
        The volumes, the names of labels or classes, and whether exactly one of them is right.

    Raises:
        SettingsError: if a column is missing or its values are neither.
    """
    table.require(*columns)
    if not columns:
        raise SettingsError(
            f"{table.name}: say which columns to learn with --column; it has {', '.join(map(repr, table.columns))}"
        )
    rows = {name: found[0] for name, found in table.by_volume().items()}
    values = {name: [row.values[c] for c in columns] for name, row in rows.items()}
    words = {word for row in values.values() for word in row}
    if words <= _BINARY:
        targets = {name: np.array([float(x) if x else np.nan for x in row], np.float32) for name, row in values.items()}
        names, exclusive = tuple(columns), False
    elif len(columns) == 1:
        names = tuple(sorted(words - {""}))
        if not 2 <= len(names) <= 100:
            raise SettingsError(
                f"{table.name}: column {columns[0]!r} holds {len(names)} different word(s); classes are 2 to 100"
            )
        exclusive = True
        targets = {n: np.array([row[0] == c for c in names], np.float32) for n, row in values.items() if row[0]}
    else:
        line, text = next((r.line, r.values[c]) for r in rows.values() for c in columns if r.values[c] not in _BINARY)
        raise SettingsError(
            f"{table.name}, line {line}: several columns are learned together only if they hold 0, 1 or nothing, "
            f"and one holds {quoted(text)}"
        )
    return [Labelled(volume=store[name], targets=t) for name, t in targets.items()], names, exclusive


def of_items(
    items: Sequence[Labelled], names: tuple[str, ...], exclusive: bool, settings: FinetuneSettings
) -> Classify:
    """Build the task, with the prior of some labelled volumes."""
    table = np.stack([i.targets for i in items if i.targets is not None])
    known = np.isfinite(table)
    prior = np.where(known, table, 0).sum(0) / np.maximum(known.sum(0), 1)
    return Classify(names=names, exclusive=exclusive, prior=tuple(round(float(p), 6) for p in prior), settings=settings)


def joined(items: Sequence[Labelled], points: Sequence[Labelled], maps: Sequence[Labelled]) -> list[Labelled]:
    """Add the points and label maps of the same volumes, which help to learn and are not
    predicted."""
    point_of, map_of = {i.volume.id: i for i in points}, {i.volume.id: i for i in maps}
    result = []
    for item in items:
        p, m = point_of.get(item.volume.id, item), map_of.get(item.volume.id, item)
        result.append(replace(item, points=p.points, reach_mm=p.reach_mm, map=m.map))
    return result
