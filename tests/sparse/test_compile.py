"""`torch.compile` of a convolution, norm, activation block on visible cells: one graph for all masks with as many visible cells, the same numbers."""

import shutil

import pytest
import torch
from torch import nn

from laws.tiny import crop_of, ragged
from wavespark.sparse import CellLayout, SparseBatchNorm, SparseReLU, StridedConv3d, SubmanifoldConv3d, VisibleCells

C = 4
# Raised within torch where it traces any autograd function.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning"),
    pytest.mark.skipif(torch.__version__ < (2, 5), reason="the compiler of torch 2.4 cannot trace values with slots"),
]


def network():
    torch.manual_seed(0)
    return nn.Sequential(SubmanifoldConv3d(C, 8), SparseBatchNorm(8), SparseReLU(), StridedConv3d(8, 8)).double()


def cells_of(block, seed=2):
    size, visible = (4 * block, 3 * block, 3 * block), ragged(4, 3, 3, seed=seed)
    return VisibleCells.from_dense(crop_of(*size, channels=C), visible, cell=block), visible


def runs(block, backend):
    """Value and gradients, eager and compiled, of two masks whose neighbours were not looked for before; how many graphs that took."""
    net, graphs = network(), []

    def counted(graph, inputs):
        graphs.append(graph)
        return torch._dynamo.lookup_backend(backend)(graph, inputs)

    def run(features, layout):
        return net(VisibleCells(features=features, layout=layout)).features

    compiled = torch.compile(run, fullgraph=True, backend=counted)
    for seed in (2, 3):
        cells, visible = cells_of(block, seed)
        features = cells.features.detach().requires_grad_()
        found = []
        for work in (run, compiled):
            layout = CellLayout.of(visible, size=cells.layout.size, cell=cells.layout.cell)
            y = work(features, layout)
            found.append((y, *torch.autograd.grad(y.square().sum(), [features, *net.parameters()])))
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-9)
    return len(graphs)


@pytest.mark.parametrize("block", [8, 2])
def test_a_block_on_cells_and_its_gradients_compile_into_one_graph_whatever_the_mask(block):
    assert runs(block, "aot_eager") == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch's own compiler needs g++")
def test_torchs_own_compiler_gives_the_same_numbers():
    assert runs(8, "inductor") == 1
