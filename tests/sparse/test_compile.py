"""`torch.compile` of a convolution, norm, activation block on visible cells whose neighbours were found before: one graph, the same bits."""

import torch
from torch import nn

from laws.tiny import crop_of, ragged
from wavespark.sparse import SparseBatchNorm, SparseReLU, StridedConv3d, SubmanifoldConv3d, VisibleCells


def test_a_block_on_cells_compiles_into_one_graph_and_computes_the_same_bits():
    net = nn.Sequential(SubmanifoldConv3d(4, 8), SparseBatchNorm(8), SparseReLU(), StridedConv3d(8, 8))
    cells = VisibleCells.from_dense(crop_of(32, 24, 24, channels=4, dtype=torch.float32), ragged(4, 3, 3), cell=8)
    features = cells.features.detach().requires_grad_()

    def block(features):
        return net(cells.with_features(features)).features

    runs = []
    for run in (block, torch.compile(block, backend="eager", fullgraph=True)):
        y = run(features)
        runs.append((y, *torch.autograd.grad(y.square().sum(), [features, *net.parameters()])))
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))
