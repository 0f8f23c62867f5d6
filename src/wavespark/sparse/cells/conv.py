"""Convolutions of stride 1 on visible cells, and the choice between their equal forms.

A submanifold convolution (Graham et al., "3D semantic segmentation with submanifold sparse
convolutional networks", CVPR 2018) reads zero wherever a neighbour is hidden or outside. Kernel 1
acts on each token alone. Larger odd kernels cross cells through a halo (`forms.halo`). Kernel 3 has
other exact forms, all deterministic; `convolution_plan` chooses the one that was measured to be
cheapest (docs/LEDGER.md).
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wavespark.errors import ShapeError
from wavespark.shapes import Triple, as_triple, product
from wavespark.sparse.cells.forms import tuning
from wavespark.sparse.cells.forms.borders import borders
from wavespark.sparse.cells.forms.columns import FewRowsConv
from wavespark.sparse.cells.forms.faces import FacesConv
from wavespark.sparse.cells.forms.gradient import is_measured
from wavespark.sparse.cells.forms.halo import HaloConv, halo_index
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.gather_gemm import Group, gather_gemm
from wavespark.sparse.precision import compute_dtype, operands

Form = Literal["pointwise", "whole", "faces", "columns", "halo"]

_FORMS: dict[Form, str] = {
    "pointwise": "each token alone",
    "whole": "nothing is hidden: one dense convolution",
    "faces": "each cell alone, then what visible neighbours add to its faces, edges and corners",
    "columns": "27 rows gathered for each token, one matrix product",
    "halo": "a one-token halo gathered around each cell, a convolution without padding",
}


@dataclass(frozen=True, slots=True)
class ConvolutionPlan:
    """The form that will compute a convolution of visible cells; every form gives the same
    values."""

    form: Form

    def __repr__(self) -> str:
        return f"ConvolutionPlan({self.form!r}: {_FORMS[self.form]})"


def convolution_plan(x: VisibleCells, weight: Tensor) -> ConvolutionPlan:
    """Return the form that computes `submanifold_conv(x, weight)`: the cheapest that was measured
    for such cells.

    >>> from wavespark.sparse import CellLayout
    >>> layout = CellLayout.of(torch.ones(1, 2, 2, 2).tril() > 0, size=(32, 32, 32), cell=(16, 16, 16))
    >>> convolution_plan(VisibleCells(features=torch.zeros(len(layout), 8, 8, 8, 4), layout=layout), torch.zeros(4, 4, 3, 3, 3))
    ConvolutionPlan('faces': each cell alone, then what visible neighbours add to its faces, edges and corners)
    """
    if tuple(weight.shape[2:]) == (1, 1, 1):
        return ConvolutionPlan("pointwise")
    if _groups(x, weight) > 1:
        return ConvolutionPlan("halo")
    if x.layout.is_full:
        return ConvolutionPlan("whole")
    if tuple(weight.shape[2:]) != (3, 3, 3):
        return ConvolutionPlan("halo")
    if x.features.device.type != "cpu":
        return ConvolutionPlan("halo")  # lists of neighbours would have to be waited for
    if min(x.block) <= 2:
        return ConvolutionPlan("columns")
    if torch.compiler.is_compiling():
        return ConvolutionPlan("halo")  # how many neighbours there are would be part of the graph
    # Half precision: the faces would be rounded once for every neighbour.
    if compute_dtype(x.features) not in (torch.float32, torch.float64) or _is_light(x, weight):
        return ConvolutionPlan("halo")
    return ConvolutionPlan("faces")


def submanifold_conv(
    x: VisibleCells,
    weight: Tensor,
    bias: Tensor | None = None,
    dilation: int | Triple = 1,
    form: Form | None = None,
) -> VisibleCells:
    """Return the convolution of the features at the visible tokens; hidden and outside tokens read
    zero.

    Args:
        x: features [N, b, b, b, C].
        weight: [C_out, C / groups, k, k, k], k odd, with one group or as many groups as channels
            (depthwise, `C / groups == 1`).
        bias: [C_out].
        dilation: 1; sparse voxels take any.
        form: how to compute it; by default the cheapest, see `convolution_plan`. All forms give the
            same values.

    Raises:
        ShapeError: if the weight does not fit, or the form cannot compute this convolution.
    """
    channels = x.channels
    groups = _groups(x, weight)
    if (
        weight.ndim != 5
        or any(k % 2 == 0 for k in weight.shape[2:])
        or weight.shape[1] * groups != channels
        or (groups > 1 and weight.shape[0] != channels)
    ):
        raise ShapeError(
            f"a convolution of {channels} channel(s) on visible cells takes a weight [out, {channels}, k, k, k] or, depthwise, "
            f"[{channels}, 1, k, k, k], each k odd, got {tuple(weight.shape)}"
        )
    if as_triple(dilation, "dilation") != (1, 1, 1):
        raise ShapeError(
            f"visible cells take dilation 1, got {dilation}. Sparse voxels, x.to_sparse(), take any dilation"
        )
    x = x.zero_outside()
    features, weight = operands(x.features, weight)
    if len(x):
        x = x.with_features(features)
        if form is not None:
            _check_form(form, x, weight, groups)
        out = _compute(form or convolution_plan(x, weight).form, x, weight, groups)
    else:  # a crop of air has nothing to predict; the weights still join the graph, with zero gradients
        out = features.new_zeros(*features.shape[:4], weight.shape[0]) + 0 * (features.sum() + weight.sum())
    return x.with_features(out if bias is None else out + bias.to(out.dtype))


def _is_light(x: VisibleCells, weight: Tensor) -> bool:
    """Return True for few channels on large cells, where the many small steps at the faces cost
    more than a halo.

    Measured where the gradient of the weight is fast too.
    """
    limits = tuning.TUNING
    few = min(weight.shape[:2]) >= limits.swapped_channels and max(weight.shape[:2]) <= limits.halo_channels
    return few and min(x.block) >= limits.halo_edge and is_measured(x.features)


def _groups(x: VisibleCells, weight: Tensor) -> int:
    return x.channels if weight.ndim == 5 and weight.shape[1] == 1 and x.channels > 1 else 1


def _check_form(form: Form, x: VisibleCells, weight: Tensor, groups: int) -> None:
    """Raise a ShapeError if a form cannot compute this convolution."""
    kernel = tuple(weight.shape[2:])
    cube = "a kernel of 3 along each axis and one group", kernel == (3, 3, 3) and groups == 1
    needs: dict[str, list[tuple[str, bool]]] = {
        "halo": [("a kernel larger than 1", kernel != (1, 1, 1))],
        "pointwise": [("kernel 1", kernel == (1, 1, 1))],
        "whole": [("every cell visible", x.layout.is_full), ("one group", groups == 1)],
        "columns": [cube],
        "faces": [cube, ("cells of at least 2 tokens along each edge", min(x.block) >= 2)],
    }
    if form not in needs:
        raise ShapeError(f"no form is called {form!r}: choose one of {', '.join(needs)}")
    missing = [need for need, holds in needs[form] if not holds]
    if missing:
        raise ShapeError(
            f"the form {form!r} needs {' and '.join(missing)}, got {x!r} and a weight {tuple(weight.shape)}. "
            "Leave form out to have it chosen"
        )


def _compute(form: Form, x: VisibleCells, weight: Tensor, groups: int) -> Tensor:
    features = x.features
    if form == "pointwise":
        return features * weight.flatten() if groups > 1 else F.linear(features, weight.flatten(1))
    if form == "whole":
        return _whole(x, weight)
    if form == "columns":
        return _columns(x, weight)
    if form == "faces":
        faces: Tensor = FacesConv.apply(features, weight, borders(x.layout, x.block))
        return faces
    d, h, w = (k // 2 for k in weight.shape[2:])
    reach = d, h, w
    halo: Tensor = HaloConv.apply(features, weight, groups, *halo_index(x.layout, x.block, reach, reach))
    return halo


def _whole(x: VisibleCells, weight: Tensor) -> Tensor:
    """Compute one dense convolution.

    All cells are visible, so cutting the crop into cells again is a change of axes.
    """
    (gd, gh, gw), (bd, bh, bw) = x.grid, x.block
    dense = F.conv3d(x.to_dense(), weight, padding=[k // 2 for k in weight.shape[2:]])
    d, h, w = (g * b - have for g, b, have in zip(x.grid, x.block, dense.shape[2:], strict=True))
    blocks = F.pad(dense, (0, w, 0, h, 0, d)).reshape(x.batch_size, -1, gd, bd, gh, bh, gw, bw)
    return blocks.permute(0, 2, 4, 6, 3, 5, 7, 1).reshape(len(x), bd, bh, bw, -1)


def _columns(x: VisibleCells, weight: Tensor) -> Tensor:
    taps = tuple(range(27))
    index = x.layout.cached(("columns", x.block), lambda: _column_index(x))
    if _is_few(x, weight):
        few: Tensor = FewRowsConv.apply(x.features.flatten(0, 3), weight, index)
        return few.view(*x.features.shape[:4], weight.shape[0])
    # The token that is read at a tap reads back at the mirrored one.
    read, back = Group(None, taps, index), Group(None, taps, index.flip(1))
    rows = gather_gemm(x.features.flatten(0, 3), weight.flatten(2).permute(2, 1, 0), (read,), (back,), len(index))
    return rows.view(*x.features.shape[:4], weight.shape[0])


def _is_few(x: VisibleCells, weight: Tensor) -> bool:
    """Return True if the weight is larger than the features.

    Never in half precision, where the part of each neighbour would be rounded, nor in a graph,
    which must not depend on the number of rows.
    """
    exact = x.features.dtype in (torch.float32, torch.float64)
    return exact and not torch.compiler.is_compiling() and x.features[..., 0].numel() <= weight.shape[0]


def _column_index(x: VisibleCells) -> Tensor:
    """int32 [N * b^3, 27]: the row that each token reads at each tap, the number of rows where
    there is nothing."""
    index = x.layout.halo(x.block, 1, 1).unfold(1, 3, 1).unfold(2, 3, 1).unfold(3, 3, 1)
    return index.reshape(len(x) * product(x.block), 27).int()
