"""Both kinds of sparse value as nodes of torch's pytrees: the features are the leaf, the sites are
structure.

So `tree_map` maps features, `torch.func.grad` returns the gradient as a value on the same sites,
and leaves on another device take the sites along.
"""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from wavespark.sparse.cells.layout import CellLayout
from wavespark.sparse.cells.value import VisibleCells
from wavespark.sparse.voxels.coordinates import Coordinates
from wavespark.sparse.voxels.value import SparseVoxels

_FEATURES = pytree.GetAttrKey("features")


def _cells_flat(x: VisibleCells) -> tuple[list[Tensor], CellLayout]:
    return [x.features], x.layout


def _cells_of(leaves: Iterable[Tensor], layout: CellLayout) -> VisibleCells:
    """A leaf may be anything that a caller mapped the features to, so nothing is checked but the
    device."""
    (features,) = leaves
    value = object.__new__(VisibleCells)
    object.__setattr__(value, "features", features)
    object.__setattr__(value, "layout", layout.to(features.device) if _is_real(features) else layout)
    return value


def _voxels_flat(x: SparseVoxels) -> tuple[list[Tensor], Coordinates]:
    return [x.features], x.coordinates


def _voxels_of(leaves: Iterable[Tensor], coordinates: Coordinates) -> SparseVoxels:
    (features,) = leaves
    known = coordinates.to(features.device) if _is_real(features) else coordinates
    value = object.__new__(SparseVoxels)
    stride = known.stride[0] if len(set(known.stride)) == 1 else known.stride
    fields = {"features": features, "sites": known.sites, "stride": stride, "batch_size": known.batch_size}
    for name, field in (fields | {"coordinates": known}).items():
        object.__setattr__(value, name, field)
    return value


def _is_real(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and not torch.compiler.is_compiling() and leaf.device.type != "meta"


def register() -> None:
    """Register both kinds with torch; a second call changes nothing."""
    known = pytree.SUPPORTED_NODES
    if VisibleCells not in known:
        pytree.register_pytree_node(
            VisibleCells,
            _cells_flat,
            _cells_of,
            serialized_type_name="wavespark.sparse.VisibleCells",
            flatten_with_keys_fn=lambda x: ([(_FEATURES, x.features)], x.layout),
        )
    if SparseVoxels not in known:
        pytree.register_pytree_node(
            SparseVoxels,
            _voxels_flat,
            _voxels_of,
            serialized_type_name="wavespark.sparse.SparseVoxels",
            flatten_with_keys_fn=lambda x: ([(_FEATURES, x.features)], x.coordinates),
        )
