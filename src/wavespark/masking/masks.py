"""Masks: visible and hidden cells of each volume.

Legend: B batch, D H W grid of cells, N visible cells.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Masks:
    """Visible and hidden cells of each volume; invalid cells are neither."""

    visible: Tensor
    """bool [B, D, H, W]."""
    hidden: Tensor
    """bool [B, D, H, W]."""
    valid: Tensor
    """bool [B, D, H, W]: cells with a voxel of the crop."""

    @property
    def visible_sites(self) -> Tensor:
        """Visible cells as (sample, d, h, w), int32 [N, 4] in lexicographic order."""
        return self.visible.nonzero().int()

    @property
    def visible_share(self) -> float:
        """Visible cells among the valid ones of the batch."""
        return self._share(self.visible)

    @property
    def hidden_share(self) -> float:
        """Hidden cells among the valid ones of the batch."""
        return self._share(self.hidden)

    def shares(self) -> dict[str, float]:
        """Return the shares for a line of metrics.jsonl."""
        return {"visible_share": self.visible_share, "hidden_share": self.hidden_share}

    def _share(self, cells_BDHW: Tensor) -> float:
        return int(cells_BDHW.sum()) / int(self.valid.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class NestedMasks(Masks):
    """Hidden cells, split into `local` (hidden from a finer second view, too) and `global_only`."""

    global_only: Tensor
    """bool [B, D, H, W]."""
    local: Tensor
    """bool [B, D, H, W]."""

    @property
    def global_share(self) -> float:
        """Cells hidden from the global view only, among the valid ones of the batch."""
        return self._share(self.global_only)

    @property
    def local_share(self) -> float:
        """Cells hidden from both views, among the valid ones of the batch."""
        return self._share(self.local)

    def shares(self) -> dict[str, float]:
        """Return the shares for a line of metrics.jsonl."""
        return {
            "visible_share": self.visible_share,
            "hidden_share": self.hidden_share,
            "global_share": self.global_share,
            "local_share": self.local_share,
        }


def counts(cells_BDHW: Tensor) -> list[int]:
    """Number of True cells in each volume."""
    return cells_BDHW.sum((1, 2, 3)).tolist()
