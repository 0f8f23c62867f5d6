"""A small objective with heads of smooth structure, no store."""

import torch
import torch.nn.functional as F

from wavespark.config import PretrainSettings, load_pretraining
from wavespark.engine.learning.objective import Objective
from wavespark.engine.learning.step import Scoring, StepResult, reconstruct
from wavespark.masking import BlockMasking
from wavespark.models import DecoderSettings, SparK, WaveFormer, WaveFormerSettings
from wavespark.sampling import Batch

CELL = 4
SECOND_VIEW = ("objective.second_view=1.0", "objective.second_view_cells=[1, 1, 1]")
CONTRAST = (*SECOND_VIEW, "objective.contrast=0.1")
SAME_LOCATION = ("objective.contrast=0.1", "objective.contrast_pairs=same_location")


def settings_of(*words: str, crop: int = 64) -> PretrainSettings:
    """`tiny-cpu` with words; the model of these tests is smaller, so the crop is given in cells of 8 as the settings see it."""
    return load_pretraining(
        "tiny-cpu", [f"data.crop=[{crop}, {crop}, {crop}]", "objective.variance_floor=1e-4", *words]
    )


def small_model(seed: int = 0) -> SparK:
    """Two levels, cells of 4 voxels."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = WaveFormer(WaveFormerSettings(channels=(24, 48), depths=(1, 1), heads=(2, 4), mlp_ratio=2), {"MR": 1})
        return SparK(encoder, DecoderSettings(widths=(48,), depths=(1,), heads=(4,)))


def objective_of(*words: str, seed: int = 0, grid: int = 5) -> Objective:
    """On a grid of `grid` cells along each axis."""
    settings = settings_of(f"run.seed={seed}", *words, crop=8 * grid)
    return Objective(settings, small_model(seed), settings.mask_plan((8, 8, 8)))


def scored(model: SparK, batch: Batch, masking: BlockMasking, seed: int, step: int, floor: float) -> StepResult:
    """One step under random masks."""
    masks = masking.sample(draws=[(seed, step, key) for key in batch.mask_keys])
    return reconstruct(model, batch, masks, seed, step, Scoring(variance_floor=floor))


def batch_for(objective: Objective, number: int = 0, count: int = 3, patients: tuple[str, ...] | None = None) -> Batch:
    """Smooth volumes of the objective's box."""
    size = [g * CELL * f for g, f in zip(objective.plan.grid, objective.settings.objective.join, strict=True)]
    generator = torch.Generator().manual_seed(1000 + number)
    coarse = torch.randn(count, 1, 7, 7, 7, generator=generator)
    voxels = F.interpolate(coarse, size=size, mode="trilinear", align_corners=True)
    keys = tuple(f"{number}.{i}" for i in range(count))
    return Batch(
        voxels=voxels,
        foreground=torch.ones(count, *size, dtype=torch.bool),
        modality="MR",
        draws=tuple(range(count)),
        mask_keys=keys,
        patients=patients if patients is not None else keys,
    )


def train(objective: Objective, steps: int, rate: float = 2e-3, first: int = 1) -> list[float]:
    """Updates with a new batch each step; the normalised losses."""
    optimizer = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=rate)
    losses = []
    for step in range(first, first + steps):
        terms = objective(batch_for(objective, step), step)
        optimizer.zero_grad()
        terms.loss.backward()
        torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
        optimizer.step()
        objective.after_update(step)
        losses.append(float(terms.score.normalised_loss.detach()))
    return losses
