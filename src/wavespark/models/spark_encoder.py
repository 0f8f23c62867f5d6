"""The sparse encoder of the 2025-10 system: convolution, batch norm, ReLU at several strides, from
given channels down and up again; nothing dense anywhere.

After Tian et al. (SparK, 2023). It takes either kind of sparse value, voxels at general sites
(`SparseVoxels`) or the features of visible cells (`VisibleCells`), so it runs on voxels as well as
on the features of another encoder.
"""

from itertools import pairwise
from typing import TYPE_CHECKING

from torch import nn

from wavespark.errors import ModelError
from wavespark.sparse import SparseBatchNorm, SparseReLU, StridedConv3d, SubmanifoldConv3d, TransposedConv3d
from wavespark.sparse.kinds import Layer, T


class SparKEncoder(nn.Module):
    """A U of sparse convolutions.

    Args:
        in_channels: channels of the input.
        channels: channels of each scale, finest first; each next one has twice the stride.

    Example:
        >>> import torch
        >>> from wavespark.sparse import SparseVoxels
        >>> sites = torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 2, 2]], dtype=torch.int32)
        >>> SparKEncoder(256, (128, 64))(SparseVoxels(torch.randn(3, 256), sites))
        [SparseVoxels(3 site(s), 256 channel(s), stride 1, batch 1), SparseVoxels(3 site(s), 64 channel(s), stride 2, batch 1)]
    """

    def __init__(self, in_channels: int, channels: tuple[int, ...] = (128, 64)) -> None:
        super().__init__()
        if not channels or min(in_channels, *channels) < 1:
            raise ModelError(f"a sparse encoder needs channels of at least 1, got {in_channels} and {channels}")
        self.first = _Part(SubmanifoldConv3d(in_channels, channels[0], 3, bias=False))
        self.down = nn.ModuleList(
            nn.Sequential(_Part(StridedConv3d(a, b, 2, 2, bias=False)), _Part(SubmanifoldConv3d(b, b, 3, bias=False)))
            for a, b in pairwise(channels)
        )
        self.up = nn.ModuleList(TransposedConv3d(b, a, 2, 2, bias=False) for a, b in pairwise(channels))
        self.joined = nn.ModuleList(_Part(SubmanifoldConv3d(a, a, 3, bias=False)) for a in channels[:-1])
        self.last = _Part(SubmanifoldConv3d(channels[0], in_channels, 3, bias=False))

    if TYPE_CHECKING:

        def __call__(self, x: T) -> list[T]: ...

    def forward(self, x: T) -> list[T]:
        """Return the finest scale with the channels of the input, then every coarser one after the
        way up; on the sites of x and their parents."""
        levels: list[T] = [self.first(x)]
        for down in self.down:
            levels.append(down(levels[-1]))
        for i in reversed(range(len(self.up))):
            raised = self.up[i](levels[i + 1], like=levels[i])
            levels[i] = self.joined[i](levels[i].with_features(levels[i].features + raised.features))
        levels[0] = self.last(levels[0])
        return levels


class _Part(Layer):
    """Convolution, batch norm over the active rows, ReLU."""

    def __init__(self, conv: SubmanifoldConv3d | StridedConv3d) -> None:
        super().__init__()
        self.conv = conv
        self.norm = SparseBatchNorm(conv.weight.shape[0])
        self.relu = SparseReLU()

    def forward(self, x: T) -> T:
        return self.relu(self.norm(self.conv(x)))
