"""Base class of the encoders: voxels of visible cells in, features at every stride out.

The kinds differ in `encode` alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from wavespark.errors import ModelError, ShapeError
from wavespark.models.settings import EncoderSettings, FeatureInfo
from wavespark.shapes import Triple, as_triple, ceil_div
from wavespark.sparse import CellLayout, VisibleCells


class Encoder(nn.Module, ABC):
    """Base class of `WaveFormer`, `ResEnc` and `IsotropicWaveFormer`.

    Args:
        settings: the frozen dataclass that describes the network.
        stems: channels of a crop for each modality.
        cell: voxels along each edge of a hidden unit.
        strides: voxels per token at each level, finest first.
        channels: channels of each level, finest first.

    Raises:
        ModelError: if there is no stem, or one without a channel.
    """

    def __init__(
        self,
        settings: EncoderSettings,
        stems: Mapping[str, int],
        *,
        cell: int,
        strides: tuple[int, ...],
        channels: tuple[int, ...],
    ) -> None:
        super().__init__()
        if not stems:
            raise ModelError("an encoder needs at least one stem")
        for name, count in stems.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                raise ModelError(f"the stem {name!r} must take a whole number of channels, at least 1, got {count!r}")
        self.settings: EncoderSettings = settings
        self.stem_channels = dict(stems)
        self.preparation: dict[str, Any] = {}
        """The recipe that the input needs: fingerprint and settings; set when an export is
        loaded."""
        self.pretrained_decoder: dict[str, Tensor] = {}
        """Weights of a segmentation decoder that was pre-trained with the encoder; set when such an
        export is loaded."""
        self.cell: Triple = as_triple(cell)
        """Voxels per hidden unit."""
        self.strides = strides
        """Voxels per token at each level."""
        self.channels = channels
        """Channels of each level, finest first."""

    @property
    def feature_info(self) -> list[FeatureInfo]:
        """Describe each level, finest first, with the names that timm uses."""
        return [
            {"num_chs": c, "reduction": s, "module": f"stages.{i}"}
            for i, (c, s) in enumerate(zip(self.channels, self.strides, strict=True))
        ]

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            crop_BCDHW: Tensor,
            visible_BDHW: None = None,
            *,
            modality: str | None = None,
            generator: torch.Generator | None = None,
        ) -> list[Tensor]: ...
        @overload
        def __call__(
            self,
            crop_BCDHW: Tensor,
            visible_BDHW: Tensor,
            *,
            modality: str | None = None,
            generator: torch.Generator | None = None,
        ) -> list[VisibleCells]: ...
        def __call__(
            self,
            crop_BCDHW: Tensor,
            visible_BDHW: Tensor | None = None,
            *,
            modality: str | None = None,
            generator: torch.Generator | None = None,
        ) -> list[Tensor] | list[VisibleCells]: ...

    def forward(
        self,
        crop_BCDHW: Tensor,
        visible_BDHW: Tensor | None = None,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Tensor] | list[VisibleCells]:
        """Return the features of every level, finest first.

        Args:
            crop_BCDHW: prepared voxels; any size, also odd and anisotropic.
            visible_BDHW: bool, one value a cell of the grid `ceil(size / cell)`, True where
                visible; None = all visible.
            modality: name of the stem, needed where there are several.
            generator: draws of stochastic depth in training mode.

        Returns:
            With `visible`: `VisibleCells`. Without: dense tensors [B, C, ceil(size / stride)].

        Raises:
            ShapeError: if the shapes do not fit.
            ModelError: if there is no such stem, or the network cannot compute visible cells alone.
        """
        levels = self.encode(crop_BCDHW, self.layout(crop_BCDHW, visible_BDHW), modality=modality, generator=generator)
        return levels if visible_BDHW is not None else [level.to_dense() for level in levels]

    def layout(self, crop_BCDHW: Tensor, visible_BDHW: Tensor | None) -> CellLayout:
        """Return the layout of the cells of the crop that are computed."""
        if not isinstance(crop_BCDHW, Tensor):
            kind = f"{type(crop_BCDHW).__module__}.{type(crop_BCDHW).__qualname__}"
            raise ShapeError(f"a crop must be a torch tensor [B, C, D, H, W], got {kind}: use torch.as_tensor(crop)")
        if crop_BCDHW.ndim != 5:
            raise ShapeError(f"a crop must be [B, C, D, H, W], got shape {tuple(crop_BCDHW.shape)}")
        batch, _, d, h, w = crop_BCDHW.shape
        if visible_BDHW is None:
            visible_BDHW = torch.ones(batch, *ceil_div((d, h, w), self.cell), dtype=torch.bool)
        elif visible_BDHW.shape[0] != batch:
            raise ShapeError(f"the crop has {batch} sample(s) and `visible` {visible_BDHW.shape[0]}")
        return CellLayout.of(visible_BDHW, size=(d, h, w), cell=self.cell, device=crop_BCDHW.device)

    @abstractmethod
    def encode(
        self,
        crop_BCDHW: Tensor,
        layout: CellLayout,
        *,
        modality: str | None = None,
        generator: torch.Generator | None = None,
        details: list[list[Tensor]] | None = None,
    ) -> list[VisibleCells]:
        """Compute the features of the visible cells alone, at every level.

        Stage by stage, the wavelet details that the published decoder needs are appended to
        `details`.
        """

    def own_parameters(self, level: int) -> Iterable[nn.Parameter]:
        """Return the parameters that serve the output of a level and nothing else."""
        return ()

    def modality_of(self, crop_BCDHW: Tensor, modality: str | None) -> str:
        """Return the name of the stem that the crop goes through; a single unnamed one (`any`)
        takes every modality.

        Raises:
            ModelError: if that is not decided, or there is none.
            ShapeError: if the crop has other channels.
        """
        stems = self.stem_channels
        if modality is None:
            if len(stems) > 1:
                raise ModelError(f"this encoder has the stems {sorted(stems)}: say which with modality=")
            modality = next(iter(stems))
        elif modality not in stems and set(stems) == {"any"}:
            modality = "any"
        elif modality not in stems:  # `mr` is MR
            modality = next((name for name in stems if name.lower() == str(modality).lower()), modality)
        if modality not in stems:
            raise ModelError(f"no stem for modality {modality!r}; this encoder has {sorted(stems)}")
        if crop_BCDHW.shape[1] != stems[modality]:
            raise ShapeError(
                f"the stem {modality!r} takes {stems[modality]} channel(s), the crop has {crop_BCDHW.shape[1]}"
            )
        return modality
