"""Regression: one number for a volume, such as an age.

The head learns the standardised number and answers in the unit of the column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.config.downstream import FinetuneSettings
from wavespark.downstream.classify import tiles, visible_cells
from wavespark.downstream.heads import CellClassifier, pooled
from wavespark.downstream.items import Labelled
from wavespark.downstream.labels import LabelTable
from wavespark.downstream.memory import Readable
from wavespark.errors import SettingsError
from wavespark.models import Encoder
from wavespark.prepare import Store
from wavespark.sampling.scene import Scene


@dataclass(frozen=True, kw_only=True, slots=True)
class Regress:
    """The task of estimating one number of a volume."""

    name: str
    """Column."""
    mean: float
    """Mean of the training volumes: the estimate before the first step."""
    deviation: float
    """Standard deviation of the training volumes; one unit of the head."""
    settings: FinetuneSettings
    kind: ClassVar[str] = "regress"
    main: ClassVar[str] = "mae"
    """Mean absolute error, in the unit of the column."""

    def __post_init__(self) -> None:
        if not (np.isfinite(self.mean) and np.isfinite(self.deviation) and self.deviation > 0):
            raise SettingsError(
                f"column {self.name!r}: mean {self.mean:g} and standard deviation {self.deviation:g} of the training volumes: there is nothing to learn "
                "unless the values differ"
            )

    def describe(self) -> dict[str, Any]:
        """Plain values from which the task can be rebuilt."""
        return {"kind": self.kind, "name": self.name, "mean": self.mean, "deviation": self.deviation}

    def build(self, encoder: Encoder) -> nn.Module:
        """The network: an estimate and a weight for every visible cell."""
        return CellClassifier(encoder, 1)

    def start(self, model: nn.Module, items: Sequence[Labelled]) -> None:
        """Nothing: the network begins near the mean."""

    def loss(self, model: nn.Module, scenes: Sequence[Scene], items: Sequence[Labelled], modality: str) -> Tensor:
        """Smooth absolute error of a batch of windows, in standard deviations; each window stands
        for its volume."""
        network = cast(CellClassifier, model)
        device, cell = next(model.parameters()).device, network.encoder.cell
        voxels = torch.from_numpy(np.stack([s.voxels for s in scenes])).to(device)
        visible = torch.from_numpy(np.stack([visible_cells(s.maps["foreground"], cell) for s in scenes]))
        estimates = network(voxels, visible, modality=modality)[:, 0].float()
        truth = torch.tensor([(value_of(item) - self.mean) / self.deviation for item in items], device=device)
        return F.smooth_l1_loss(estimates, truth.to(estimates.dtype))

    @torch.inference_mode()
    def predict(self, model: nn.Module, volume: Readable) -> float:
        """Estimate from all cells with foreground, in the unit of the column."""
        network = cast(CellClassifier, model.eval())
        device = next(model.parameters()).device
        voxels, foreground = torch.from_numpy(volume.read()), volume.read_foreground()
        opinions, weights = [], []
        for box in tiles(volume.size, self.settings.data.crop, network.encoder.cell):
            if not foreground[box].any():
                continue
            visible = torch.from_numpy(visible_cells(foreground[box], network.encoder.cell))[None]
            _, features = network.cells(voxels[(slice(None), *box)][None].to(device), visible, volume.modality)
            opinion, weight = network.votes(features)
            opinions.append(opinion)
            weights.append(weight)
        if not opinions:
            return self.mean
        return self.mean + self.deviation * float(pooled(torch.cat(opinions), torch.cat(weights))[0])

    def scores(self, found: float, item: Labelled) -> dict[str, float]:
        """Absolute error of one volume, and that of always answering the mean of the training
        volumes."""
        truth = value_of(item)
        return {"absolute_error": abs(found - truth), "absolute_error_of_mean": abs(self.mean - truth)}


def value_of(item: Labelled) -> float:
    """Number of a labelled volume; NaN if it has none."""
    return float(item.targets[0]) if item.targets is not None else float("nan")


def with_values(table: LabelTable, store: Store, column: str) -> list[Labelled]:
    """Volumes with a number in a column; empty cells are left out.

    Raises:
        SettingsError: if the column is missing, empty, or holds something that is not a finite
            number.
    """
    table.require(column)
    items = []
    for name, rows in table.by_volume().items():
        row = rows[0]
        text = row.values[column]
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise SettingsError(
                f"{table.name}, line {row.line}: column {column!r} must hold a finite number or nothing"
            )
        items.append(Labelled(volume=store[name], targets=np.array([value], np.float32)))
    if not items:
        raise SettingsError(f"{table.name}: column {column!r} is empty")
    return items


def regression_of(train: Sequence[Labelled], name: str, settings: FinetuneSettings) -> Regress:
    """The task, standardised by the training volumes.

    Raises:
        SettingsError: if all values are equal.
    """
    values = np.array([value_of(item) for item in train], np.float64)
    return Regress(name=name, mean=float(values.mean()), deviation=float(values.std()), settings=settings)
