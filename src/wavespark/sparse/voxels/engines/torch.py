"""The engine that is always there: gather and multiply in plain torch, on any device and in any
floating type."""

import torch
from torch import Tensor

from wavespark.sparse.gather_gemm import gather_gemm, gather_scale
from wavespark.sparse.voxels.engines.contract import Convolution, Engine
from wavespark.sparse.voxels.kernel_map import strided_map, submanifold_map


class TorchEngine:
    """Equal to a dense convolution read at the active sites; deterministic."""

    name = "torch"

    def convolve(self, features_NC: Tensor, weight: Tensor, task: Convolution) -> Tensor:
        """See `Engine.convolve`."""
        if task.transposed:
            pairs = strided_map(task.target, task.source, task.kernel, task.stride)
            return gather_gemm(features_NC, weight.flatten(2).permute(2, 0, 1), pairs.up, pairs.down, pairs.fine)
        weight_KIO = weight.flatten(2).permute(2, 1, 0)
        if task.kernel == (1, 1, 1) and task.is_submanifold:
            return features_NC * weight.flatten() if task.depthwise else torch.mm(features_NC, weight_KIO[0])
        if task.is_submanifold:
            pairs = submanifold_map(task.source, task.kernel, task.dilation)
            if task.depthwise:
                return gather_scale(features_NC, weight.flatten(1).T, pairs.down, pairs.up, pairs.coarse)
        else:
            pairs = strided_map(task.source, task.target, task.kernel, task.stride)
        return gather_gemm(features_NC, weight_KIO, pairs.down, pairs.up, pairs.coarse)


def load() -> Engine:
    return TorchEngine()
