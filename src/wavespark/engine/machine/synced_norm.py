"""Batch norm over the active rows of all processes, as `nn.SyncBatchNorm` is for dense tensors; over any backend, gloo on a CPU too."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from wavespark.errors import ShapeError
from wavespark.sparse import SparseBatchNorm, VisibleCells


class SyncedBatchNorm(SparseBatchNorm):
    """`SparseBatchNorm` whose statistics, in training, are those of the rows of all processes together."""

    def forward(self, x: Any) -> Any:
        """The same sites."""
        if not self.training:
            return super().forward(x)
        self._check(x)
        self.num_batches_tracked.add_(1)
        cells = isinstance(x, VisibleCells)
        features: Tensor = (x.zero_outside() if cells else x).features
        exact = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(0, -2)
        inside = x.layout.inside(x.block) if cells else None
        shown = torch.ones_like(exact[:, :1]) if inside is None else inside.flatten()[:, None].to(exact.dtype)
        count = shown.sum()
        dist.all_reduce(count)
        if count < 2:
            raise ShapeError(f"batch norm in training needs at least 2 active rows in all processes, got {int(count)}")
        mean = all_reduce(exact.sum(0)) / count
        centred = (exact - mean) * shown
        variance = all_reduce(centred.square().sum(0)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), self.momentum)
        normed = centred * torch.rsqrt(variance + self.eps)
        normed = normed if self.weight is None else normed * self.weight
        normed = normed if self.bias is None else normed + self.bias
        result = x.with_features(normed.to(features.dtype).view(features.shape))
        return result.zero_outside() if cells else result


def sync_batch_norm(module: nn.Module) -> nn.Module:
    """Puts a `SyncedBatchNorm` in the place of every `SparseBatchNorm`, with the same parameters and running statistics."""
    for name, part in module.named_children():
        if type(part) is not SparseBatchNorm:
            sync_batch_norm(part)
            continue
        synced = SyncedBatchNorm(part.num_features, part.eps, part.momentum, affine=False, device="meta")
        synced.weight, synced.bias = part.weight, part.bias
        for buffer in ("running_mean", "running_var", "num_batches_tracked"):
            setattr(synced, buffer, getattr(part, buffer))
        setattr(module, name, synced.train(part.training))
    return module
