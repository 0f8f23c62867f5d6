"""Signs of collapse: how much features vary, in how many directions, and whether two looks at the
same place agree."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class LevelHealth:
    """The features of one level over a fixed set of cells."""

    stride: int
    """Voxels per token."""
    feature_std: float
    """Standard deviation over cells, mean over channels; 0 = every cell looks the same."""
    effective_rank: float
    """See `effective_rank`."""
    alignment: float
    """See `alignment`; NaN where no cell is visible under both masks."""


def effective_rank(features_NC: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred features: between 1
    (collapsed) and C.

    Roy and Vetterli, "The effective rank" (2007); Garrido et al., "RankMe" (2023).
    """
    centred = features_NC.double() - features_NC.double().mean(0)
    values = torch.linalg.svdvals(centred)
    if not values.sum() > 0:
        return 1.0
    share = values / values.sum()
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))


def alignment(one_NC: Tensor, other_NC: Tensor) -> float:
    """Mean squared distance of unit features of the same places under two masks: 0 = the same,
    about 2 = unrelated; NaN without rows.

    Wang and Isola, "Understanding contrastive representation learning through alignment and
    uniformity" (2020), after taking out the mean of
    both: an offset that all places share would hide how they differ. Small is good only while
        `feature_std` and `effective_rank` are not.
    """
    if not len(one_NC):
        return float("nan")
    mean = torch.cat((one_NC, other_NC)).double().mean(0)
    a, b = (F.normalize(x.double() - mean, dim=1) for x in (one_NC, other_NC))
    return float((a - b).square().sum(1).mean())


def level_health(stride: int, features_NC: Tensor, one_MC: Tensor, other_MC: Tensor) -> LevelHealth:
    """The health of a level.

    Args:
        stride: voxels per token.
        features_NC: all cells of the fixed set.
        one_MC, other_MC: the cells that two masks both leave visible, as each shows them.
    """
    return LevelHealth(
        stride=stride,
        feature_std=float(features_NC.double().std(0).mean()),
        effective_rank=effective_rank(features_NC),
        alignment=alignment(one_MC, other_MC),
    )
