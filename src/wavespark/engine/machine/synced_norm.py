"""Batch norm over the active rows of all processes, as `nn.SyncBatchNorm` is for dense tensors;
over any backend, gloo on a CPU too."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce

from wavespark.errors import ShapeError
from wavespark.sparse import SparseBatchNorm
from wavespark.sparse.kinds import Layer, T
from wavespark.sparse.layers.norm import batch_norm, check_channels, count_batch


class SyncedBatchNorm(Layer):
    """`SparseBatchNorm` whose statistics, in training, are those of the rows of all processes
    together.

    Args:
        part: the norm to replace, whose parameters and running statistics this one takes over.
    """

    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(self, part: SparseBatchNorm) -> None:
        super().__init__()
        self.num_features, self.eps, self.momentum = part.num_features, part.eps, part.momentum
        self.register_parameter("weight", part.weight)
        self.register_parameter("bias", part.bias)
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(part, name))
        self.train(part.training)

    def extra_repr(self) -> str:
        return f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.weight is not None}"

    def forward(self, x: T) -> T:
        """Return the same sites, normalised by the rows of all processes (training) or the running
        statistics (eval).

        Raises:
            ShapeError: if the channels differ, or a single row is active in all processes in
                training.
        """
        check_channels(self, x, self.num_features)
        if not self.training:
            mean, variance = self.running_mean, self.running_var
            return batch_norm(x, mean, variance, self.weight, self.bias, mean is None, 0.0, self.eps)
        momentum = count_batch(self.num_batches_tracked, self.momentum)
        features, inside = x.zero_outside().features, x.inside()
        exact = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(0, -2)
        shown = torch.ones_like(exact[:, :1]) if inside is None else inside.flatten()[:, None].to(exact.dtype)
        count = shown.sum()
        dist.all_reduce(count)
        if count < 2:
            raise ShapeError(f"batch norm in training needs at least 2 active rows in all processes, got {int(count)}")
        mean = all_reduce(exact.sum(0)) / count
        centred = (exact - mean) * shown
        variance = all_reduce(centred.square().sum(0)) / count
        if self.running_mean is not None and self.running_var is not None:
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var.dtype), momentum)
        normed = centred * torch.rsqrt(variance + self.eps)
        normed = normed if self.weight is None else normed * self.weight
        normed = normed if self.bias is None else normed + self.bias
        return x.with_features(normed.to(features.dtype).view(features.shape)).zero_outside()


def sync_batch_norm(module: nn.Module) -> nn.Module:
    """Put a `SyncedBatchNorm` in the place of every `SparseBatchNorm`, with the same parameters and
    running statistics."""
    for name, part in module.named_children():
        if type(part) is SparseBatchNorm:
            setattr(module, name, SyncedBatchNorm(part))
        else:
            sync_batch_norm(part)
    return module
