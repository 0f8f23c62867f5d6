"""The held-out measure: fixed crops with fixed masks, scored in normalised units beside trilinear inpainting; and their pictures."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from wavespark.config import PretrainSettings
from wavespark.engine.step import StepResult, forward
from wavespark.masking import BlockMasking
from wavespark.metrics import effective_rank, inpaint
from wavespark.models import SparK
from wavespark.objectives import Score, reconstruction
from wavespark.prepare import Store
from wavespark.prepare.publish import write_file
from wavespark.randomness import stream
from wavespark.sampling import Batch, Crop, Split, collate
from wavespark.sampling.crops import random_crop
from wavespark.sparse import CellLayout, gather_cells

_MASK_STEP = 0
"""Training steps count from 1, so no training mask equals a held-out one."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class HeldOut:
    """Crops that no training crop touches, the same in every run of a seed."""

    crops: tuple[Crop, ...]
    masking: BlockMasking
    seed: int
    variance_floor: float

    @classmethod
    def of(cls, store: Store, split: Split, settings: PretrainSettings, masking: BlockMasking) -> "HeldOut":
        """`run.held_out_crops` crops, spread over modalities and volumes."""
        by_modality: dict[str, list[Any]] = {}
        for region in split.held_out:
            by_modality.setdefault(store[region.volume].modality, []).append(region)
        rng = stream(settings.run.seed, purpose="held-out crops")
        queues = [[regions[i] for i in rng.permutation(len(regions))] for _, regions in sorted(by_modality.items())]
        crops = []
        for k in range(settings.run.held_out_crops):
            queue = queues[k % len(queues)]
            region = queue[(k // len(queues)) % len(queue)]
            crops.append(random_crop(store[region.volume], region, settings.data.crop, rng, tries=8))
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
        by_modality: dict[str, list[tuple[Score, Score, Score]]] = {}
        for batch, result in zip(self.batches(), results, strict=True):
            by_modality.setdefault(batch.modality, []).append(
                (result.score, *inpainting_scores(batch, result, model.encoder.cell))
            )
        scores = {name: [_sum([row[i] for row in rows]) for i in range(3)] for name, rows in by_modality.items()}
        overall = [_sum([s[i] for s in scores.values()]) for i in range(3)]
        return {
            "step": step,
            **_named(overall),
            "effective_rank": effective_rank(features),
            "feature_std": float(features.std(0).mean()),
            "target_cells": sum(int(r.predicted.sum()) for r in results),
            "per_modality": {name: _named(s) for name, s in scores.items()},
        }, results

    @staticmethod
    def _coarsest(model: SparK, batch: Batch, result: StepResult) -> Tensor:
        device = next(model.parameters()).device
        return (
            model.encoder(batch.voxels.to(device), result.masks.visible, modality=batch.modality)[-1]
            .features.flatten(0, 3)
            .float()
        )


def _sum(scores: Sequence[Score]) -> Score:
    total = scores[0]
    for score in scores[1:]:
        total = total + score
    return total


def _named(scores: Sequence[Score]) -> dict[str, float | None]:
    names = ("normalised_loss", "inpainting", "inpainting_own_mean")
    return {name: _finite(score.normalised_loss) for name, score in zip(names, scores, strict=True)}


def _finite(value: Tensor) -> float | None:
    number = float(value)
    return number if np.isfinite(number) else None


def inpainting_scores(batch: Batch, result: StepResult, cell: tuple[int, int, int]) -> tuple[Score, Score]:
    """Trilinear inpainting in the units of the targets: as it is, and granted the true mean of every cell."""
    filled = inpaint(batch.voxels, voxel_mask(result.masks.visible, cell, batch.voxels.shape[2:]))
    targets = result.targets
    layout = CellLayout(
        cells=result.predicted.nonzero(),
        grid=tuple(result.predicted.shape[1:]),
        batch_size=len(batch.voxels),
        size=tuple(batch.voxels.shape[2:]),
        cell=cell,
        counts=(int(result.predicted.sum()),),
    )
    cells = gather_cells(filled, layout, cell).to(targets.mean.device)
    inside = gather_cells(batch.foreground[:, None].float(), layout, cell).to(targets.mean.device)
    own_mean = (cells * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
    return tuple(reconstruction((cells - mean) / targets.scale, targets) for mean in (targets.mean, own_mean))  # type: ignore[return-value]


def voxel_mask(cells_BDHW: Tensor, cell: tuple[int, int, int], size: Sequence[int]) -> Tensor:
    """A cell mask as a voxel mask of the crop."""
    for axis in range(3):
        cells_BDHW = cells_BDHW.repeat_interleave(cell[axis], axis + 1)
    d, h, w = size
    return cells_BDHW[:, :d, :h, :w]


def write_examples(
    folder: Path,
    held_out: HeldOut,
    results: Sequence[StepResult],
    cell: tuple[int, int, int],
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
    content = save({name: t.contiguous() for name, t in tensors.items()}, metadata={"cases": json.dumps(cases)})
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / f"step_{step:08d}.safetensors", content)


def _reconstructed(batch: Batch, result: StepResult, cell: tuple[int, int, int]) -> Tensor:
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
