"""Signs of collapse."""

import torch
from torch import Tensor


def effective_rank(features_NC: Tensor) -> float:
    """exp of the entropy of the normalised singular values of the centred features: between 1 (collapsed) and C.

    Roy and Vetterli, "The effective rank" (2007); Garrido et al., "RankMe" (2023).
    """
    centred = features_NC.double() - features_NC.double().mean(0)
    values = torch.linalg.svdvals(centred)
    if not values.sum() > 0:
        return 1.0
    share = values / values.sum()
    return float(torch.exp(-(share * (share + 1e-12).log()).sum()))
