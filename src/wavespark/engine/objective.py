"""What a run minimises, as one module: the loop asks it for sums, and saves what it keeps beside the model.

A loss is a weighted sum of terms, each a sum over something (voxels, queries) and how many there were: so that several processes, each with a part of
the batch, minimise exactly what one process would.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wavespark.config import PretrainSettings
from wavespark.engine.step import forward
from wavespark.masking import BlockMasking
from wavespark.masking.masks import Masks
from wavespark.models import SparK
from wavespark.objectives import Score
from wavespark.sampling import Batch


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
    """What a batch gave."""

    terms: Mapping[str, Term]
    """By the name under which metrics.jsonl has it; the same names in the same order in every process of a step."""
    score: Score
    """For the normalised loss of the reconstruction."""
    masks: Masks


class Objective(nn.Module):
    """Reconstruction of hidden cells.

    Its parameters (those of `model` included) are what is trained.
    """

    def __init__(self, settings: PretrainSettings, model: SparK, masking: BlockMasking) -> None:
        super().__init__()
        self.model = model
        self.settings = settings
        self.masking = masking

    def forward(self, batch: Batch, step: int) -> Terms:
        """The terms of a batch at a step (counted from 1); everything drawn depends on the seed, the step and the samples' keys only."""
        floor = self.settings.objective.variance_floor
        result = forward(self.model, batch, self.masking, self.settings.run.seed, step, floor)
        return Terms(
            terms={"reconstruction": Term(total=result.score.error, count=result.score.voxels)},
            score=result.score,
            masks=result.masks,
        )

    def after_update(self, step: int) -> None:
        """Is told after each update of the weights (not after a skipped one), e.g. for a teacher that follows them."""

    def measured(self, line: Mapping[str, Any]) -> None:
        """Is told each line of validation.jsonl, e.g. for a gate that opens below a loss, or for alarms that raise `TrainingStopped(..., 4)`."""

    def extra_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must hold beside the model's and the optimiser's state."""
        return {}

    def extra_state(self) -> dict[str, Any]:
        """Numbers that a checkpoint must hold, as JSON."""
        return {}

    def restore(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Puts back what `extra_tensors` and `extra_state` gave."""
