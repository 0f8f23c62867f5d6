"""Workloads of `bench sparse`: a convolution, and (convolution, batch norm, ReLU) twice, on a whole
crop and on what is visible of it.

Every form does forward and backward pass with the gradients of the input and of all parameters, on
the same numbers. A sparse form starts from the features of what is visible and builds its indices
and coordinate maps again in every step. Axes: B batch, C channels, D H W voxels, b voxels along a
cell's edge.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavespark.masking import BlockMasking
from wavespark.sparse import (
    CellLayout,
    SparseBatchNorm,
    SparseReLU,
    SparseVoxels,
    SubmanifoldConv3d,
    VisibleCells,
    set_engine,
)

Work = Callable[[], object]
PLAIN, LAST = "dense x mask", "dense x mask, channels last"
BLOCKS = {
    "dense, NCDHW": "nn.BatchNorm3d's arithmetic over all voxels, x mask: less than the task, and so the cheaper yardstick",
    "dense, channels last": "the same in channels-last-3d",
    "dense, channels last, exact": "batch norm over the visible rows alone, gathered and put back: what visible cells compute",
}
"""The three dense variants of the block."""


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """A random crop and a network of two blocks with weights for all forms."""

    crop_BCDHW: Tensor
    network: nn.Sequential

    @classmethod
    def of(cls, channels: int, size: int) -> "Scene":
        """Drawn from torch's generator; on the processor, fp32."""
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [SubmanifoldConv3d(channels, channels, bias=False), SparseBatchNorm(channels), SparseReLU()]
        return cls(torch.randn(1, channels, size, size, size), nn.Sequential(*layers))

    @property
    def first(self) -> SubmanifoldConv3d:
        """The convolution that is measured alone."""
        conv: SubmanifoldConv3d = self.network[0]  # type: ignore[assignment]
        return conv


def visible_cells(size: int, cell: int, hidden: float, seed: int) -> Tensor:
    """bool [1, D, H, W] on the grid of cells."""
    edge = size // cell
    return BlockMasking(grid=(edge, edge, edge), ratio=hidden).sample(draws=[(seed, 0, "bench")]).visible


def as_voxels(visible_BDHW: Tensor, cell: int) -> Tensor:
    """Booleans of cells as booleans of voxels."""
    for axis in (1, 2, 3):
        visible_BDHW = visible_BDHW.repeat_interleave(cell, axis)
    return visible_BDHW


def cells_work(scene: Scene, visible: Tensor, cell: int, *, block: bool) -> Work:
    """Visible cells with `cell` tokens along an edge."""
    crop = scene.crop_BCDHW
    values = VisibleCells.from_dense(crop, visible, cell=cell)

    def run(features: Tensor) -> Tensor:
        layout = CellLayout.of(visible, size=values.layout.size, cell=values.layout.cell)
        x = VisibleCells(features=features, layout=layout)
        result: Tensor = (scene.network if block else scene.first)(x).features
        return result

    return _step(run, scene, values.features, block=block)


def voxels_work(scene: Scene, visible: Tensor, cell: int, engine: str) -> Work:
    """Sparse voxels in the order of the grid, the convolution alone, computed by `engine`."""
    values = SparseVoxels.from_dense(scene.crop_BCDHW, as_voxels(visible, cell))

    def run(features: Tensor) -> Tensor:
        with set_engine(engine):
            result: Tensor = scene.first(SparseVoxels(features, values.sites, 1, 1)).features
        return result

    return _step(run, scene, values.features, block=False)


def dense_work(scene: Scene, visible: Tensor, cell: int, name: str) -> Work:
    """The dense form of that name: of the convolution (`PLAIN`, `LAST`) or of the block
    (`BLOCKS`)."""
    shown = as_voxels(visible, cell)
    mask = shown[:, None].float()
    order = torch.channels_last_3d if "last" in name else torch.contiguous_format
    crop = scene.crop_BCDHW.contiguous(memory_format=order)
    if name not in BLOCKS:
        return _step(lambda x: _dense_conv(x * mask, scene.first, order) * mask, scene, crop, block=False)
    norm = partial(_norm_visible, shown=shown) if "exact" in name else partial(_norm_all, mask=mask)

    def run(x: Tensor) -> Tensor:
        x = x * mask
        for i in (0, 3):
            x = norm(_dense_conv(x, scene.network[i], order), scene.network[i + 1])
        return x

    return _step(run, scene, crop, block=True)


def _step(run: Callable[[Tensor], Tensor], scene: Scene, inputs: Tensor, *, block: bool) -> Work:
    parameters = list(scene.network.parameters()) if block else [scene.first.weight]

    def work() -> object:
        x = inputs.detach().requires_grad_()
        return torch.autograd.grad(run(x), (x, *parameters), inputs)

    return work


def _dense_conv(x: Tensor, conv: nn.Module, order: torch.memory_format) -> Tensor:
    weight: Tensor = conv.weight  # type: ignore[assignment]
    return F.conv3d(x, weight.contiguous(memory_format=order), padding=1)


def _norm_all(x: Tensor, norm: nn.Module, mask: Tensor) -> Tensor:
    y = F.batch_norm(x, None, None, norm.weight, norm.bias, True)  # type: ignore[arg-type]
    return torch.relu(y) * mask


def _norm_visible(x: Tensor, norm: nn.Module, shown: Tensor) -> Tensor:
    rows = x.movedim(1, -1)
    y = torch.relu(F.batch_norm(rows[shown], None, None, norm.weight, norm.bias, True))  # type: ignore[arg-type]
    return torch.zeros_like(rows).index_put((shown,), y).movedim(-1, 1)


def scaling_work(sites: int, channels: int = 16) -> Work:
    """A convolution of random sparse voxels, a quarter of a cube active; coordinates checked and
    mapped in every step."""
    edge = round((4 * sites) ** (1 / 3)) + 1
    keys = torch.randperm(edge**3)[:sites].sort().values
    table = torch.stack((torch.zeros_like(keys), keys // edge**2, keys // edge % edge, keys % edge), 1).int()
    features, conv = torch.randn(sites, channels), SubmanifoldConv3d(channels, channels, bias=False)

    def work() -> object:
        x = features.detach().requires_grad_()
        return torch.autograd.grad(conv(SparseVoxels(x, table, 1, 1)).features, (x, conv.weight), features)

    return work
