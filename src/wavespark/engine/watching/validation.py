"""The held-out measure: fixed crops with fixed masks, scored in normalised units beside inpainting;
and the health of every level."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavespark.config import PretrainSettings
from wavespark.engine.learning.objective import views_of
from wavespark.engine.learning.step import Scoring, StepResult, reconstruct, voxel_mask
from wavespark.engine.watching.online_probe import OnlineProbe
from wavespark.masking import MaskPlan
from wavespark.masking.masks import Masks
from wavespark.masking.plan import HELD_OUT_STEP
from wavespark.metrics import harmonic, inpaint
from wavespark.metrics.health import level_health
from wavespark.models import SparK
from wavespark.objectives import Score, places_of, reconstruction
from wavespark.prepare import Store
from wavespark.randomness import stream
from wavespark.sampling import Batch, Crop, Split, collate
from wavespark.sampling.crops import random_crop
from wavespark.sampling.views import Views
from wavespark.shapes import Triple
from wavespark.sparse import VisibleCells, cut_cells


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """Crops that no training crop touches, the same in every run of a seed."""

    crops: tuple[Crop, ...]
    plan: MaskPlan
    settings: PretrainSettings
    probe: OnlineProbe
    baselines: list[tuple[Score, Score, Score]] = field(default_factory=list)
    """Scores of interpolation on each crop, filled at the first measure."""

    @classmethod
    def of(cls, store: Store, split: Split, settings: PretrainSettings, plan: MaskPlan) -> "HeldOut":
        """`run.held_out_crops` crops, spread over modalities, contrasts and volumes."""
        by_kind: dict[tuple[str, str], list[Any]] = {}
        for region in split.held_out:
            volume = store[region.volume]
            by_kind.setdefault((volume.modality, volume.contrast or ""), []).append(region)
        rng = stream(settings.run.seed, purpose="held-out crops")
        queues = [[regions[i] for i in rng.permutation(len(regions))] for _, regions in sorted(by_kind.items())]
        crops = []
        for k in range(settings.run.held_out_crops):
            queue = queues[k % len(queues)]
            region = queue[(k // len(queues)) % len(queue)]
            crops.append(random_crop(store[region.volume], region, settings.box, rng, tries=8))
        return cls(crops=tuple(crops), plan=plan, settings=settings, probe=OnlineProbe.of(store, settings))

    def batches(self, cell: Triple) -> list[tuple[Batch, Views | None]]:
        """One crop each, and its two views where the run has two: a score does not depend on how
        many are computed at once."""
        boxes = [collate([(-1 - k, crop)]) for k, crop in enumerate(self.crops)]
        views = [views_of(box, self.settings, cell, HELD_OUT_STEP) for box in boxes]
        return [(box if v is None else v.coarse, v) for box, v in zip(boxes, views, strict=True)]

    @torch.no_grad()
    def measure(self, model: SparK, step: int) -> tuple[dict[str, Any], list[StepResult]]:
        """The line of validation.jsonl, and the results of the crops."""
        was_training = model.training
        model.eval()
        batches = self.batches(model.encoder.cell)
        results = [self._score(model, batch, self.plan.held_out_masks(batch.mask_keys)) for batch, _ in batches]
        other_keys = [[f"{key}:another mask" for key in batch.mask_keys] for batch, _ in batches]
        others = [
            self._score(model, batch, self.plan.held_out_masks(keys))
            for (batch, _), keys in zip(batches, other_keys, strict=True)
        ]
        line: dict[str, Any] = {}
        if self.settings.objective.second_view:
            views = [v.fine for _, v in batches if v is not None]
            fine = [self._score(model, view, self.plan.held_out_fine_masks(view.mask_keys)) for view in views]
            line["second_view"] = _finite(reduce(add, [r.score for r in fine]).normalised_loss)
        model.train(was_training)
        if not self.baselines:  # they never change: the crops and the masks are fixed
            self.baselines.extend(
                baseline_scores(batch, result, model.encoder.cell)
                for (batch, _), result in zip(batches, results, strict=True)
            )
        rows = [(r.score, *baseline) for r, baseline in zip(results, self.baselines, strict=True)]
        scans = [f"{crop.modality} {crop.contrast or 'unknown'}" for crop in self.crops]
        levels = health_of(model.encoder.strides, [r.levels for r in results], [r.levels for r in others])
        probe = self.probe.measure(model)
        return {
            "step": step,
            **_named(rows),
            **line,
            "effective_rank": levels[-1]["effective_rank"],
            "feature_std": levels[-1]["feature_std"],
            "alignment": levels[-1]["alignment"],
            "levels": levels,
            **({} if probe is None else {"probe": probe}),
            "target_cells": sum(int(r.predicted.sum()) for r in results),
            "per_modality": _by([crop.modality for crop in self.crops], rows),
            "per_contrast": _by(scans, rows),
        }, results

    def _score(self, model: SparK, batch: Batch, masks: Masks) -> StepResult:
        scoring = Scoring.of(self.settings.objective)
        return reconstruct(model, batch, masks, self.settings.run.seed, HELD_OUT_STEP, scoring, levels_too=True)


def health_of(
    strides: Sequence[int], ones: Sequence[list[VisibleCells]], others: Sequence[list[VisibleCells]]
) -> list[dict[str, float | None]]:
    """Feature spread, effective rank and alignment of every level, over the cells of all crops.

    Args:
        strides: of the levels.
        ones: levels of each crop under one mask.
        others: the same crops under another.
    """
    lines = []
    for number, stride in enumerate(strides):
        features, here, there = [], [], []
        for one, other in zip(ones, others, strict=True):
            a, b = one[number], other[number]
            x, y = places_of(a).features, places_of(b).features
            rows_a, rows_b = a.layout.rows_of(a.cells), b.layout.rows_of(b.cells)
            features.append(x)
            here.append(x[torch.isin(rows_a, rows_b)])
            there.append(y[torch.isin(rows_b, rows_a)])
        health = level_health(stride, torch.cat(features), torch.cat(here), torch.cat(there))
        lines.append({k: v if np.isfinite(v) else None for k, v in asdict(health).items()})
    return lines


def _named(rows: Sequence[Sequence[Score]]) -> dict[str, float | None]:
    """The normalised losses of the sums over crops."""
    names = ("normalised_loss", "inpainting", "inpainting_own_mean", "harmonic_own_mean")
    return {
        name: _finite(reduce(add, column).normalised_loss)
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }


def _by(kinds: Sequence[str], rows: Sequence[Sequence[Score]]) -> dict[str, dict[str, float | None]]:
    return {kind: _named([r for r, k in zip(rows, kinds, strict=True) if k == kind]) for kind in sorted(set(kinds))}


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def baseline_scores(batch: Batch, result: StepResult, cell: Triple) -> tuple[Score, Score, Score]:
    """Score interpolation in the units of the targets: trilinear; trilinear and harmonic, granted
    the true mean of every cell."""
    visible = voxel_mask(result.masks.visible, cell, batch.voxels.shape[2:])
    targets = result.targets
    inside = cut_cells(batch.foreground[:, None].float(), result.predicted, cell).to(targets.mean.device)

    def score(filled: Tensor, grant_mean: bool) -> Score:
        cells = cut_cells(filled, result.predicted, cell).to(targets.mean.device)
        own = (cells * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
        return reconstruction((cells - (own if grant_mean else targets.mean)) / targets.scale, targets)

    trilinear = inpaint(batch.voxels, visible)
    return score(trilinear, False), score(trilinear, True), score(harmonic(batch.voxels, visible), True)
