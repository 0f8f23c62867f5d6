"""Every golden case of MinkowskiEngine 0.5.4: sites, values and all gradients. The two-dimensional ones run with a
third axis of size 1.

136 cases travel with the tests; the other 68 (large ones) are read from the shared data where it is.
"""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wavespark.sparse import (
    AvgPool3d,
    GlobalAvgPool,
    GlobalMaxPool,
    MaxPool3d,
    SparseBatchNorm,
    SparseReLU,
    SparseVoxels,
    SumPool3d,
    cat,
)
from wavespark.sparse.layers.conv import strided_conv, submanifold_conv, transposed_conv

HERE = Path(__file__).resolve()
SHARED = Path(os.environ.get("WAVESPARK_SHARED_DATA") or HERE.parents[2].parent / "shared" / "data")
FOLDER = SHARED / "goldens" / "minkowski-0.5.4"


def _packed() -> dict[str, dict[str, Any]]:
    cases = {}
    with np.load(HERE.parents[1] / "goldens" / "minkowski-0.5.4.npz") as packed:
        flat = {"floats": packed["floats"], "sites": packed["sites"].astype(np.int32)}
        for case in json.loads(str(packed["cases"])):
            for name, (start, shape) in case.pop("arrays").items():
                kind = "sites" if "sites" in name else "floats"
                case[name] = flat[kind][start : start + int(np.prod(shape))].reshape(shape)
            cases[case["file"]] = case
    return cases


PACKED = _packed()
REST = json.loads((FOLDER / "index.json").read_text()) if FOLDER.is_dir() else []
NAMES = [*PACKED, *(case["file"] for case in REST if case["file"] not in PACKED)]


def _case(name: str) -> dict[str, Any]:
    if name in PACKED:
        return PACKED[name]
    with np.load(FOLDER / name) as golden:
        return {**next(case for case in REST if case["file"] == name), **{k: golden[k] for k in golden.files}}


class Golden:
    """A case lifted to three dimensions, as fp32 tensors."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case, self.op, self.flat = case, case["op"], case["dim"] == 2
        self.batch = int(case["sites"][:, 0].max()) + 1
        self.step = (2, 2, 1) if self.flat else (2, 2, 2)

    def sites(self, name: str) -> Tensor:
        sites = self.case[name]
        return torch.from_numpy(np.concatenate((sites, np.zeros_like(sites[:, :1])), 1) if self.flat else sites.copy())

    def tensor(self, name: str) -> Tensor:
        return torch.from_numpy(self.case[name].copy())

    def weight(self, name: str) -> Tensor:
        return (self.tensor(name)[..., None] if self.flat else self.tensor(name)).requires_grad_()

    def voxels(self, features: str = "features", sites: str = "sites") -> SparseVoxels:
        return SparseVoxels(self.tensor(features).requires_grad_(), self.sites(sites), stride=1, batch_size=self.batch)


def _run(g: Golden, x: SparseVoxels, weight: Tensor | None) -> SparseVoxels | Tensor:
    pools = {"maxpool": MaxPool3d, "avgpool": AvgPool3d, "sumpool": SumPool3d}
    kind = g.op.split("_")[0]
    if kind == "conv" and g.case["s"] == 1:
        return submanifold_conv(x, weight, None, g.case["dil"])
    if kind == "conv":
        return strided_conv(x, weight, None, g.step)
    if kind in ("tr", "gen"):
        coarse = strided_conv(x, g.weight("w_down").detach(), None, g.step)
        return transposed_conv(coarse, weight, None, g.step, x if kind == "tr" else None, kind == "gen")
    if kind in pools:
        return pools[kind](g.step, g.step)(x)
    if kind in ("gmax", "gavg"):
        return GlobalMaxPool()(x) if kind == "gmax" else GlobalAvgPool()(x)
    if kind == "bn":
        norm = SparseBatchNorm(x.channels)
        norm.weight.data, norm.bias.data = g.tensor("gamma"), g.tensor("beta")
        y = norm(x)
        _same(norm.running_mean, g.tensor("running_mean"))
        _same(norm.running_var, g.tensor("running_var"))
        return y
    if kind == "relu":
        return SparseReLU()(x)
    if kind == "union":
        return x + g.voxels("features2", "sites2")
    assert kind == "cat"
    return cat([x, SparseVoxels(g.tensor("features2"), x.sites, batch_size=g.batch)])


def _misplaced(features: Tensor, grad: Tensor) -> Tensor:
    """What MinkowskiEngine 0.5.4 returns for the global maximum of a single sample.

    It takes the winning row for a position in the flattened gradient, so that everything lands in the first elements.
    With two samples (another code path of it) it is right.
    """
    flat = torch.zeros(features.numel())
    return flat.index_add(0, features.detach().argmax(0), grad[0]).view_as(features)


def _max_gradient(features: Tensor, grad: Tensor) -> Tensor:
    rows = features.detach().clone().requires_grad_()
    rows.max(0).values.backward(grad[0])
    return rows.grad


def _same(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max().clamp(min=1.0)


@pytest.mark.parametrize("name", NAMES)
def test_minkowski_and_wavespark_agree_on_sites_values_and_gradients(name: str) -> None:
    g = Golden(_case(name))
    x, weight = g.voxels(), g.weight("weight") if g.case["weight"].size else None
    y = _run(g, x, weight)
    order = slice(None)
    if isinstance(y, SparseVoxels):
        order = torch.from_numpy(np.lexsort(y.sites.numpy().T[::-1]))
        assert torch.equal(y.sites[order], g.sites("out_sites").int())
        assert y.coordinates.stride[: g.case["dim"]] == tuple(g.case["out_stride"])
    features = (y if isinstance(y, Tensor) else y.features)[order]
    _same(features, g.tensor("out_features"))
    features.backward(g.tensor("grad_out"))
    expected = g.tensor("grad_features")
    if g.op == "gmax" and g.batch == 1:
        _same(_misplaced(x.features, g.tensor("grad_out")), expected)
        expected = _max_gradient(x.features, g.tensor("grad_out"))
    _same(x.features.grad, expected)
    if "grad_weight" in g.case:
        _same(weight.grad.reshape(g.case["grad_weight"].shape), g.tensor("grad_weight"))


def test_the_packed_cases_have_every_operation_in_two_and_three_dimensions() -> None:
    assert len(PACKED) == 136
    assert len({(case["op"], case["dim"]) for case in PACKED.values()}) == 34
