"""MinkowskiEngine 0.5.4 behind the engine contract.

Both sets of sites are inserted as they are, so its rows are ours; its kernels run through the first
axis fastest, the opposite of torch.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from wavespark.errors import SettingsError
from wavespark.sparse.derivatives import first_order_only
from wavespark.sparse.voxels.coordinates import Coordinates
from wavespark.sparse.voxels.engines.contract import Convolution, Engine


class MinkowskiEngine:
    """`MinkowskiEngine`; fp32 and fp64."""

    name = "minkowski"

    def __init__(
        self,
        library: ModuleType,
        mode: object,
        forward: type[torch.autograd.Function],
        transposed: type[torch.autograd.Function],
    ) -> None:
        self._library, self._mode, self._forward, self._transposed = library, mode, forward, transposed

    def convolve(self, features_NC: Tensor, weight: Tensor, task: Convolution) -> Tensor:
        """See `Engine.convolve`."""
        if features_NC.dtype not in (torch.float32, torch.float64):
            raise SettingsError(
                f"the sparse engine 'minkowski' computes in fp32 or fp64, got {features_NC.dtype}: "
                "keep the engine 'torch' for it"
            )
        order = (0, 1) if task.transposed else (1, 0)
        kernel_KIO = weight.permute(4, 3, 2, *order).flatten(0, 2)
        if not len(task.source) or not len(task.target):
            return features_NC.new_zeros(len(task.target), kernel_KIO.shape[2]) + 0 * (features_NC.sum() + weight.sum())
        if task.is_submanifold and task.kernel == (1, 1, 1):
            return features_NC @ kernel_KIO[0]
        manager, source, target, read, written = task.source.cached(
            ("minkowski", task.transposed), lambda: self._insert(task.source, task.target), beside=task.target
        )
        generator = self._library.KernelGenerator(
            kernel_size=list(task.kernel),
            stride=list(task.stride),
            dilation=list(task.dilation),
            is_transpose=task.transposed,
            dimension=3,
        )
        function = self._transposed if task.transposed else self._forward
        # The gradients of the library are written in C++: torch cannot differentiate them again.
        features_NC, kernel_KIO = (first_order_only(self.name, t) for t in (features_NC, kernel_KIO))
        rows = features_NC.index_select(0, read).contiguous()
        out = function.apply(rows, kernel_KIO.contiguous(), generator, self._mode, source, target, manager)
        result: Tensor = out.new_zeros(out.shape).index_copy(0, written, out)
        return result

    def _insert(self, source: Coordinates, target: Coordinates) -> tuple[Any, Any, Any, Tensor, Tensor]:
        """A manager with both sets of sites, their keys, and which of our rows each of its rows
        is."""
        manager = self._library.CoordinateManager(D=3)
        source_key, (read, _) = manager.insert_and_map(source.sites, list(source.stride), "source")
        if target is source:
            return manager, source_key, source_key, read.long(), read.long()
        target_key, (written, _) = manager.insert_and_map(target.sites, list(target.stride), "target")
        return manager, source_key, target_key, read.long(), written.long()


def load() -> Engine:
    """The engine, if MinkowskiEngine can be imported."""
    import MinkowskiEngine as library  # noqa: N813
    from MinkowskiEngine.MinkowskiConvolution import (
        MinkowskiConvolutionFunction,
        MinkowskiConvolutionTransposeFunction,
    )
    from MinkowskiEngineBackend._C import ConvolutionMode

    return MinkowskiEngine(
        library, ConvolutionMode.DEFAULT, MinkowskiConvolutionFunction, MinkowskiConvolutionTransposeFunction
    )
