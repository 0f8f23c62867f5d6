"""Every public operation under autocast in half precision: the type that torch's own modules give, finite, near fp32, gradients in fp32."""

import pytest
import torch

from laws.operations import CONVOLUTIONS, OTHERS, C, features
from laws.tiny import crop_of, ragged
from wavespark.sparse import VisibleCells

NEAR = {torch.bfloat16: 4e-2, torch.float16: 5e-3}


def values_of(kind, block):
    crop = crop_of(3 * block, 2 * block, 2 * block - 1, channels=C, dtype=torch.float32)
    cells = VisibleCells.from_dense(crop, ragged(3, 2, 2), cell=block)
    x = cells if kind == "cells" else cells.to_sparse()
    return x.with_features(x.features.detach().requires_grad_())


@pytest.mark.parametrize("block", [8, 2])
@pytest.mark.parametrize("kind", ["cells", "voxels"])
@pytest.mark.parametrize("dtype", NEAR, ids=str)
@pytest.mark.parametrize("name", CONVOLUTIONS | OTHERS)
def test_an_operation_under_autocast(name, dtype, kind, block):
    torch.manual_seed(0)
    operation = (CONVOLUTIONS | OTHERS)[name]()
    x = values_of(kind, block)
    inputs = [x] if name in CONVOLUTIONS else [x, x.with_features(x.features.to(dtype))]
    parameters = list(operation.parameters()) if isinstance(operation, torch.nn.Module) else []
    for given in inputs:
        expected = features(operation(given.with_features(given.features.float())))
        with torch.autocast("cpu", dtype):
            found = features(operation(given))
        assert found.dtype == (dtype if name in CONVOLUTIONS else given.features.dtype)
        assert (found.float() - expected).abs().max() <= NEAR[dtype] * expected.abs().max()
        upstream = torch.randn(expected.shape)
        # In half precision the gradients of torch's own layer norm lose digits with the number of rows.
        sums = parameters if name != "layer norm" or given is x else []
        leaves = [x.features, *sums]
        pairs = zip(*(torch.autograd.grad(y, leaves, upstream.to(y.dtype)) for y in (found, expected)), strict=True)
        for mine, exact in pairs:
            assert mine.dtype == torch.float32
            assert (mine - exact).abs().max() <= 2 * NEAR[dtype] * exact.abs().max().clamp(min=1)
