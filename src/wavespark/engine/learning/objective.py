"""The objective of a run as one module: sums for the loop, and extra state for checkpoints.

A loss is a weighted sum of terms, each a sum over something (voxels, queries) and how many there
were: so that several processes, each with a part of the batch, minimise exactly what one process
would. (Parts one after the other, `run.accumulate`, count alike, however many voxels each scores.)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wavespark.config import PretrainSettings
from wavespark.engine.learning.guidance import guide_weights
from wavespark.engine.learning.step import Scoring, StepResult, reconstruct
from wavespark.engine.learning.teacher import Teacher
from wavespark.errors import SettingsError
from wavespark.masking import MaskPlan
from wavespark.masking.masks import Masks
from wavespark.models import SparK
from wavespark.objectives import Contrast, Places, Projector, Score, info_nce, pairs, places_of
from wavespark.progress import Log, ignore_log
from wavespark.sampling import Batch
from wavespark.sampling.views import Views, two_views
from wavespark.shapes import Triple


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Term:
    """One part of the loss: `weight * total / count`."""

    total: Tensor
    """Sum, differentiable."""
    count: Tensor
    """Over how many; never negative."""
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Terms:
    """Loss terms and score of a batch."""

    terms: Mapping[str, Term]
    """By the name under which metrics.jsonl has it; the same names in the same order in every
    process of a step."""
    score: Score
    """For the normalised loss of the reconstruction."""
    masks: Masks

    @property
    def loss(self) -> Tensor:
        """Loss of a single process whose part is the whole batch."""
        losses = [t.weight * t.total / t.count.clamp(min=1) for t in self.terms.values()]
        return torch.stack(losses).sum()


class Objective(nn.Module):
    """Reconstruction of hidden cells; where asked for, also of a second, finer view, and a contrast
    between levels.

    Its parameters (those of `model` included) are what is trained. The slow copy of the model,
    where something needs one, is not among them.

    Args:
        settings: of the run.
        model: what is trained.
        plan: the run's masks.
        log: called with messages for the user.
    """

    def __init__(
        self,
        settings: PretrainSettings,
        model: SparK,
        plan: MaskPlan,
        log: Log = ignore_log,
    ) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.plan = plan
        self.log = log
        self.scoring = Scoring.of(settings.objective)
        chosen = settings.objective
        self.projectors = _projectors(model.encoder.channels, settings) if chosen.contrast else None
        needed = bool(chosen.contrast) or settings.mask.guide == "hard"
        self.teacher = Teacher(model, chosen.teacher_momentum) if needed else None
        self.contrast_open = False
        """True once the held-out loss was below `contrast_below`."""

    def forward(self, batch: Batch, step: int) -> Terms:
        """The terms of a batch at a step (counted from 1); everything drawn depends on the seed,
        the step and the samples' keys only."""
        chosen, seed, cell = self.settings.objective, self.settings.run.seed, self.model.encoder.cell
        views = views_of(batch, self.settings, cell, step)
        coarse = batch if views is None else views.coarse
        weights = guide_weights(coarse, self.plan, self.scoring, cell, step, self.teacher)
        masks = (
            self.plan.masks(coarse.mask_keys, step, weights)
            if views is None
            else self.plan.masks_around(views.footprint, coarse.mask_keys, step, weights, hide=True)
        )
        same_place = self.contrast_open and chosen.contrast_pairs == "same_location"
        result = reconstruct(self.model, coarse, masks, seed, step, self.scoring, levels_too=same_place)
        terms = {"reconstruction": Term(total=result.score.error, count=result.score.voxels)}
        fine = None if views is None else self._fine(views, step)
        if fine is not None:
            terms["second_view"] = Term(total=fine.score.error, count=fine.score.voxels, weight=chosen.second_view)
        if self.contrast_open:
            contrast = self._contrast(coarse, step, views, result, fine)
            terms["contrast"] = Term(total=contrast.total, count=contrast.count, weight=chosen.contrast)
            terms["contrast_chance"] = Term(total=contrast.chance, count=contrast.count, weight=0.0)
        elif self.projectors is not None:  # until the contrast begins, its weights join with an exact zero
            idle = sum(p.sum() for p in self.projectors.parameters())
            terms["reconstruction"] = Term(total=result.score.error + 0 * idle, count=result.score.voxels)
        return Terms(terms=terms, score=result.score, masks=masks)

    def after_update(self, step: int) -> None:
        """Update the EMA teacher; call it after every optimizer step.

        A step skipped on the device leaves the weights unchanged.
        """
        if self.teacher is not None:
            self.teacher.follow(self.model, step)

    def measured(self, line: Mapping[str, Any]) -> None:
        """Note a line of validation.jsonl: the contrast begins once the held-out loss is low
        enough."""
        loss, below = line["normalised_loss"], self.settings.objective.contrast_below
        if self.projectors is not None and not self.contrast_open and loss is not None and loss < below:
            self.contrast_open = True
            self.log(f"step {line['step']}: held-out normalised loss {loss:.3f} is below {below}, the contrast begins")

    def extra_tensors(self) -> dict[str, Tensor]:
        """Return tensors for a checkpoint beside the model and the optimizer."""
        kept = (
            {} if self.projectors is None else {f"projectors.{k}": t for k, t in self.projectors.state_dict().items()}
        )
        if self.teacher is not None:
            kept |= {f"teacher.{k}": t for k, t in self.teacher.tensors().items()}
        return kept

    def extra_state(self) -> dict[str, Any]:
        """Numbers that a checkpoint must hold, as JSON."""
        return {"contrast_open": self.contrast_open}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Puts back what `extra_tensors` and `extra_state` gave.

        Raises:
            KeyError, RuntimeError: if it does not fit.
        """
        self.contrast_open = bool(state["contrast_open"])
        if self.projectors is not None:
            self.projectors.load_state_dict(_part(tensors, "projectors."))
        if self.teacher is not None:
            self.teacher.restore(_part(tensors, "teacher."))

    def _fine(self, views: Views, step: int) -> StepResult:
        """The second view under a mask of its own, through the same model."""
        masks = self.plan.fine_masks(views.fine.mask_keys, step)
        wanted = self.contrast_open and self.settings.objective.contrast_pairs == "second_view"
        return reconstruct(self.model, views.fine, masks, self.settings.run.seed, step, self.scoring, levels_too=wanted)

    def _contrast(
        self,
        coarse: Batch,
        step: int,
        views: Views | None,
        result: StepResult,
        fine: StepResult | None,
    ) -> Contrast:
        """Queries of the student against keys of the slow copy, which sees the coarse view under
        another mask."""
        if self.teacher is None or self.projectors is None:
            raise RuntimeError("a contrast needs projectors and a slow copy of the model")
        device = result.prediction.device
        keys_of = [f"{key}:key" for key in coarse.mask_keys]
        if views is not None and fine is not None and self.settings.objective.contrast_pairs == "second_view":
            masks = self.plan.masks_around(views.footprint, keys_of, step, hide=False)
            whole = places_of(fine.levels[-1], fine.levels[-1].grid)
            queries = Places(
                features=whole.features,
                sample=whole.sample,
                tile=torch.tensor(views.places).to(device, non_blocking=True),
            )
            tile = views.tile
        else:
            masks = self.plan.masks(keys_of, step)
            queries, tile = places_of(result.levels[max(0, len(result.levels) - 2)]), (1, 1, 1)
        with torch.no_grad():
            levels = self.teacher.model.encoder(
                coarse.voxels.to(device, non_blocking=True), masks.visible, modality=coarse.modality
            )
            keys = places_of(levels[-1], tile)
        positive, negative = pairs(queries, keys, coarse.patients or coarse.mask_keys)
        return info_nce(
            self.projectors["query"](queries.features),
            self.projectors["key"](keys.features),
            positive,
            negative,
            self.settings.objective.contrast_temperature,
        )


def check_processes(settings: PretrainSettings, world: int) -> None:
    """Raises a SettingsError where the loss of several processes would not be that of one: a
    contrast needs the keys of the whole batch."""
    if world > 1 and settings.objective.contrast:
        raise SettingsError(
            f"objective.contrast compares all samples of a batch, and {world} processes would each compare their own part only: "
            "train in one process, or set objective.contrast=0"
        )


def views_of(batch: Batch, settings: PretrainSettings, cell: Triple, step: int) -> Views | None:
    """Both views of a batch of boxes; None where the run has one view."""
    chosen = settings.objective
    if not chosen.second_view:
        return None
    return two_views(
        batch,
        cell=cell,
        factor=chosen.second_view_factor,
        tile=chosen.second_view_cells,
        seed=settings.run.seed,
        step=step,
    )


def _projectors(channels: tuple[int, ...], settings: PretrainSettings) -> nn.ModuleDict:
    """One for each side; fresh weights that depend on the seed only."""
    chosen = settings.objective
    query = channels[-1] if chosen.contrast_pairs == "second_view" else channels[max(0, len(channels) - 2)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.run.seed + 1)
        return nn.ModuleDict(
            {"query": Projector(query, chosen.contrast_width), "key": Projector(channels[-1], chosen.contrast_width)}
        )


def _part(tensors: Mapping[str, Tensor], start: str) -> dict[str, Tensor]:
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
