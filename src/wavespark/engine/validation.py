"""The held-out measure: fixed crops with fixed masks, scored in normalised units beside trilinear inpainting; and their pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from wavespark.config import PretrainSettings
from wavespark.engine.step import StepResult, forward
from wavespark.masking import BlockMasking
from wavespark.metrics import effective_rank, harmonic, inpaint
from wavespark.models import SparK
from wavespark.objectives import Score, reconstruction
from wavespark.prepare import Store
from wavespark.prepare.publish import write_file
from wavespark.randomness import stream
from wavespark.sampling import Batch, Crop, Split, collate
from wavespark.sampling.crops import random_crop
from wavespark.shapes import Triple
from wavespark.sparse import cut_cells

_MASK_STEP = 0
"""Training steps count from 1, so no training mask equals a held-out one."""
_NOTE = (
    "Predicted cells are shown with their true mean and standard deviation: the network is asked for the shape within a cell only. "
    "Inpainting is shown as it is."
)


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """Crops that no training crop touches, the same in every run of a seed."""

    crops: tuple[Crop, ...]
    masking: BlockMasking
    seed: int
    variance_floor: float
    baselines: list[tuple[Score, Score, Score]] = field(default_factory=list)
    """What interpolation scores on each crop, once it is known."""

    @classmethod
    def of(cls, store: Store, split: Split, settings: PretrainSettings, masking: BlockMasking) -> "HeldOut":
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
        return cls(
            crops=tuple(crops),
            masking=masking,
            seed=settings.run.seed,
            variance_floor=settings.objective.variance_floor,
        )

    def batches(self) -> list[Batch]:
        """One crop each: a score does not depend on how many are computed at once."""
        return [collate([(-1 - k, crop)]) for k, crop in enumerate(self.crops)]

    @torch.no_grad()
    def measure(self, model: SparK, step: int) -> tuple[dict[str, Any], list[StepResult]]:
        """The line of validation.jsonl, and the results of the crops."""
        was_training = model.training
        model.eval()
        results = [
            forward(model, batch, self.masking, self.seed, _MASK_STEP, self.variance_floor) for batch in self.batches()
        ]
        features = torch.cat([self._coarsest(model, b, r) for b, r in zip(self.batches(), results, strict=True)])
        model.train(was_training)
        if not self.baselines:  # they never change: the crops and the masks are fixed
            self.baselines.extend(
                baseline_scores(batch, result, model.encoder.cell)
                for batch, result in zip(self.batches(), results, strict=True)
            )
        rows = [(r.score, *baseline) for r, baseline in zip(results, self.baselines, strict=True)]
        scans = [f"{crop.modality} {crop.contrast or 'unknown'}" for crop in self.crops]
        return {
            "step": step,
            **_named(rows),
            "effective_rank": effective_rank(features),
            "feature_std": float(features.std(0).mean()),
            "target_cells": sum(int(r.predicted.sum()) for r in results),
            "per_modality": _by([crop.modality for crop in self.crops], rows),
            "per_contrast": _by(scans, rows),
        }, results

    @staticmethod
    def _coarsest(model: SparK, batch: Batch, result: StepResult) -> Tensor:
        device = next(model.parameters()).device
        return (
            model.encoder(batch.voxels.to(device), result.masks.visible, modality=batch.modality)[-1]
            .features.flatten(0, 3)
            .float()
        )


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
    """What interpolation scores in the units of the targets: trilinear; trilinear and harmonic, granted the true mean of every cell."""
    visible = voxel_mask(result.masks.visible, cell, batch.voxels.shape[2:])
    targets = result.targets
    inside = cut_cells(batch.foreground[:, None].float(), result.predicted, cell).to(targets.mean.device)

    def score(filled: Tensor, grant_mean: bool) -> Score:
        cells = cut_cells(filled, result.predicted, cell).to(targets.mean.device)
        own = (cells * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
        return reconstruction((cells - (own if grant_mean else targets.mean)) / targets.scale, targets)

    trilinear = inpaint(batch.voxels, visible)
    return score(trilinear, False), score(trilinear, True), score(harmonic(batch.voxels, visible), True)


def voxel_mask(cells_BDHW: Tensor, cell: Triple, size: Sequence[int]) -> Tensor:
    """A cell mask as a voxel mask of the crop."""
    for axis in range(3):
        cells_BDHW = cells_BDHW.repeat_interleave(cell[axis], axis + 1)
    d, h, w = size
    return cells_BDHW[:, :d, :h, :w]


def write_examples(
    folder: Path,
    held_out: HeldOut,
    results: Sequence[StepResult],
    cell: Triple,
    step: int,
    at_most: int = 4,
) -> None:
    """`examples/step_XXXXXXXX.safetensors`: original, reconstruction, inpainting, visible, foreground of the first crops."""
    tensors: dict[str, Tensor] = {}
    cases = []
    for k, (crop, batch, result) in enumerate(
        list(zip(held_out.crops, held_out.batches(), results, strict=True))[:at_most]
    ):
        visible = voxel_mask(result.masks.visible, cell, batch.voxels.shape[2:])
        tensors |= {
            f"original_{k}": batch.voxels[0],
            f"reconstruction_{k}": _reconstructed(batch, result, cell)[0],
            f"inpainting_{k}": inpaint(batch.voxels, visible)[0],
            f"visible_{k}": visible[0].to(torch.uint8),
            f"foreground_{k}": batch.foreground[0].to(torch.uint8),
        }
        cases.append(
            {
                "volume": crop.volume,
                "modality": crop.modality,
                "contrast": crop.contrast,
                "spacing": list(crop.spacing),
                "start": list(crop.start),
            }
        )
    content = save(
        {name: t.contiguous() for name, t in tensors.items()}, metadata={"cases": json.dumps(cases), "note": _NOTE}
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"step_{step:08d}.safetensors", content)


def _reconstructed(batch: Batch, result: StepResult, cell: Triple) -> Tensor:
    """The crop with its predicted cells in voxel values (with each cell's true mean and scale, which the network is not asked for)."""
    t = result.targets
    cells = (result.prediction.float() * t.scale + t.mean).cpu()
    full = batch.voxels.clone()
    for (s, d, h, w), values in zip(result.predicted.nonzero().tolist(), cells, strict=True):
        place = full[
            s, :, d * cell[0] : (d + 1) * cell[0], h * cell[1] : (h + 1) * cell[1], w * cell[2] : (w + 1) * cell[2]
        ]
        place.copy_(values.permute(3, 0, 1, 2)[:, : place.shape[1], : place.shape[2], : place.shape[3]])
    return full
