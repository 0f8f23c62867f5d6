"""Second derivatives are those of dense torch, or are refused; never are they silently nothing."""

import pytest
import torch

from laws.tiny import crop_of, ragged
from wavespark.errors import SettingsError
from wavespark.models.idle import with_idle
from wavespark.sparse import (
    AvgPool3d,
    MaxPool3d,
    SparseInstanceNorm,
    SparseVoxels,
    StridedConv3d,
    SubmanifoldConv3d,
    SumPool3d,
    TransposedConv3d,
    VisibleCells,
)
from wavespark.sparse.derivatives import first_order_only

CONVOLUTIONS = {
    "halo": SubmanifoldConv3d(2, 3, form="halo"),
    "faces": SubmanifoldConv3d(2, 3, form="faces"),
    "columns": SubmanifoldConv3d(2, 3, form="columns"),
    "few columns": SubmanifoldConv3d(2, 400, form="columns"),
    "depthwise": SubmanifoldConv3d(2, 2, groups=2),
    "one axis": SubmanifoldConv3d(2, 3, (1, 1, 3)),
    "strided": StridedConv3d(2, 3, 3),
    "tiled": StridedConv3d(2, 3, 2),
    "transposed": TransposedConv3d(2, 3, 3, 1, generative=True),
    "transposed tiles": TransposedConv3d(2, 3, 1, 1, generative=True),
}
OTHERS = {
    "instance norm": SparseInstanceNorm(2),
    "largest value": MaxPool3d(2),
    "largest value of overlapping windows": MaxPool3d(3, 2),
    "mean": AvgPool3d(2),
    "sum of overlapping windows": SumPool3d(3, 2),
}


def cells():
    visible = ragged(2, 2, 1, batch=1, share=0.75)
    crop = crop_of(4, 4, 2, batch=1, channels=2)
    return VisibleCells.from_dense(crop, visible, cell=2)


def checked(module, value):
    module = module.double()
    parameters = [p.detach().clone().requires_grad_() for p in module.parameters()]
    names = [name for name, _ in module.named_parameters()]
    features = value.features.detach().clone().requires_grad_()

    def run(features, *parameters):
        state = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(module, state, (value.with_features(features),)).features

    fast = {"fast_mode": True}
    assert torch.autograd.gradcheck(run, (features, *parameters), **fast)
    assert torch.autograd.gradgradcheck(run, (features, *parameters), **fast)


@pytest.mark.parametrize("module", (CONVOLUTIONS | OTHERS).values(), ids=(CONVOLUTIONS | OTHERS).keys())
def test_second_derivatives_on_cells_are_those_of_finite_differences(module):
    checked(module, cells())


@pytest.mark.parametrize("module", (CONVOLUTIONS | OTHERS).values(), ids=(CONVOLUTIONS | OTHERS).keys())
def test_second_derivatives_on_voxels_are_those_of_finite_differences(module):
    checked(module, cells().to_sparse())


@pytest.mark.parametrize("kind", ["cells", "voxels"])
@pytest.mark.parametrize("name", ["halo", "faces", "columns", "depthwise", "strided"])
def test_a_gradient_penalty_reaches_the_weight(kind, name):
    """The loss is linear in the result: the upstream gradient needs none, and the penalty must not vanish."""
    value, module = cells(), CONVOLUTIONS[name].double()
    value = value if kind == "cells" else value.to_sparse()
    module.zero_grad()
    features = value.features.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(module(value.with_features(features)).features.sum(), features, create_graph=True)
    gradient.square().sum().backward()
    assert module.weight.grad is not None
    assert module.weight.grad.abs().max() > 0


def test_an_input_that_makes_the_weight_passes_its_gradient_on_once():
    """A weight that is computed from the features: the second derivative must not count that path twice."""
    value = cells()
    features = value.features.detach().requires_grad_()

    def loss(features):
        weight = features.flatten()[:27].view(1, 1, 3, 3, 3).expand(2, 2, 3, 3, 3)
        module = SubmanifoldConv3d(2, 2, bias=False, form="halo").double()
        return torch.func.functional_call(module, {"weight": weight}, (value.with_features(features),)).features.sum()

    assert torch.autograd.gradgradcheck(loss, (features,), fast_mode=True)


def test_an_engine_without_second_derivatives_refuses_them():
    x = torch.ones(3, requires_grad=True)
    first_order_only("spconv", x).square().sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 2.0))
    with pytest.raises(SettingsError, match=r"'spconv' has no second derivatives.*set_engine\('torch'\)"):
        torch.autograd.grad(first_order_only("spconv", x).sum(), x, create_graph=True)


def test_idle_parameters_leave_second_derivatives_as_they_are():
    x, idle = torch.ones(3, requires_grad=True), torch.nn.Parameter(torch.ones(2))
    (gradient,) = torch.autograd.grad(with_idle(x.pow(3), [idle]).sum(), x, create_graph=True)
    gradient.sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 6.0))


def test_a_first_derivative_does_not_take_the_way_of_a_second_one(monkeypatch):
    def never(*_):
        raise AssertionError

    for room in ("cells.forms.halo", "cells.forms.faces", "cells.strided", "gather_gemm"):
        monkeypatch.setattr(f"wavespark.sparse.{room}.gradients", never)
    for name in ("halo", "faces", "strided"):
        CONVOLUTIONS[name].double()(cells()).features.sum().backward()
    sites = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.int32)
    CONVOLUTIONS["halo"].double()(SparseVoxels(torch.ones(2, 2, dtype=torch.float64), sites)).features.sum().backward()
