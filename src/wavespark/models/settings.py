"""Shapes of the models as frozen settings, and their names: everything about a model that is known
without torch.

The command line and the run's settings check model names, strides and cells here, before torch is
imported.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from typing import Any, ClassVar, Protocol, TypedDict, TypeGuard, get_type_hints

from wavespark.errors import DependencyError, ModelError
from wavespark.text import did_you_mean


def check_heads(channels: tuple[int, ...], heads: tuple[int, ...]) -> None:
    """Raises a ModelError where channels cannot be shared out to heads."""
    for c, h in zip(channels, heads, strict=True):
        if h < 1 or c % h or c // h < 6:
            raise ModelError(
                f"{c} channels in {h} head(s): a head needs a whole number of channels, at least 6 for rotary positions"
            )


def known_wavelet(name: str) -> None:
    """Raises a ModelError if PyWavelets knows no such discrete wavelet."""
    if name == "haar":
        return
    if find_spec("ptwt") is None:
        raise DependencyError("ptwt", "wavelets", "a wavelet other than Haar")
    import pywt

    if name not in pywt.wavelist(kind="discrete"):
        raise ModelError(f"there is no wavelet {name!r}; `haar`, `db2`, `sym4`, ... as PyWavelets names them")


@dataclass(frozen=True, kw_only=True, slots=True)
class WaveFormerSettings:
    """The shape of a WaveFormer; one entry a stage.

    Stage i has stride 2^(i+1), the last stage has one token a cell.
    """

    channels: tuple[int, ...] = (48, 96, 192, 384)
    depths: tuple[int, ...] = (2, 2, 2, 2)
    heads: tuple[int, ...] = (3, 6, 12, 24)
    mlp_ratio: int = 4
    drop_path: float = 0.0
    """Largest probability to leave out a block for a sample; it grows linearly with depth from
    0."""
    multi_scale: bool = False
    """Let the finer low-pass scales attend too, inside each cell."""
    wavelet: str = "haar"
    """Other wavelets (PyWavelets' names, through ptwt) compute whole crops only: with hidden cells
    they are refused."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of storing activations: less memory, about a
    third more time."""

    def __post_init__(self) -> None:
        if not len(self.channels) == len(self.depths) == len(self.heads) >= 1:
            raise ModelError(
                f"channels {self.channels}, depths {self.depths} and heads {self.heads} must name the same stages"
            )
        check_heads(self.channels, self.heads)
        if min(self.depths) < 0 or self.mlp_ratio < 1:
            raise ModelError(f"depths {self.depths} must not be negative and mlp_ratio {self.mlp_ratio} at least 1")
        if not 0 <= self.drop_path < 1:
            raise ModelError(f"drop_path {self.drop_path} must be in [0, 1)")
        if self.multi_scale and self.wavelet != "haar":
            raise ModelError(
                f"multi_scale attends inside cells, which the wavelet {self.wavelet!r} does not keep apart"
            )
        known_wavelet(self.wavelet)

    @property
    def stages(self) -> int:
        """Number of levels."""
        return len(self.channels)

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels per token at each level, finest first."""
        return tuple(2 ** (i + 1) for i in range(self.stages))

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return self.channels

    @property
    def cell(self) -> int:
        """Voxels along each edge of a cell."""
        return 2**self.stages


@dataclass(frozen=True, kw_only=True, slots=True)
class ResEncSettings:
    """The shape of a ResEnc; one entry a stage.

    Stage i has stride 2^i, the last stage has one token a cell.
    """

    channels: tuple[int, ...] = (32, 64, 128, 256, 320, 320)
    blocks: tuple[int, ...] = (1, 3, 4, 6, 6, 6)
    drop_path: float = 0.0
    """Largest probability to leave out a block for a sample; it grows linearly with depth from
    0."""
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of storing activations: less memory, about a
    third more time."""

    def __post_init__(self) -> None:
        if not 2 <= len(self.channels) == len(self.blocks) <= 8:
            raise ModelError(f"channels {self.channels} and blocks {self.blocks} must name the same 2 to 8 stages")
        if min(*self.channels, *self.blocks) < 1:
            raise ModelError(f"channels {self.channels} and blocks {self.blocks} must be at least 1")
        if not 0 <= self.drop_path < 1:
            raise ModelError(f"drop_path {self.drop_path} must be in [0, 1)")

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels per token at each level, finest first."""
        return tuple(2**i for i in range(len(self.channels)))

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return self.channels

    @property
    def cell(self) -> int:
        """Voxels along each edge of a cell."""
        return self.strides[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class IsotropicSettings:
    """The shape of an isotropic WaveFormer, the encoder of the 2025-10 system."""

    patch: int = 16
    """Voxels along each edge of a token."""
    dim: int = 256
    depth: int = 4
    heads: int = 8
    mlp_ratio: int = 4
    drop_path: float = 0.0
    """Largest probability to leave out a block for a sample; it grows linearly with depth from
    0."""
    sparse: tuple[int, ...] = ()
    """Channels of the sparse convolutions on top, at the stride of the tokens and twice that, e.g.

    (128, 64); none by default.
    """
    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass instead of storing activations: less memory, about a
    third more time."""

    def __post_init__(self) -> None:
        if not 1 <= self.patch <= 64 or self.depth < 1 or self.mlp_ratio < 1:
            raise ModelError(
                f"patch {self.patch} must be 1 to 64 voxels, depth {self.depth} and mlp_ratio {self.mlp_ratio} at least 1"
            )
        check_heads((self.dim,), (self.heads,))
        if len(self.sparse) > 2 or (self.sparse and min(self.sparse) < 1):
            raise ModelError(
                f"sparse {self.sparse}: a cell of 2^3 tokens has room for at most two scales of at least 1 channel"
            )
        if not 0 <= self.drop_path < 1:
            raise ModelError(f"drop_path {self.drop_path} must be in [0, 1)")

    @property
    def strides(self) -> tuple[int, ...]:
        """Voxels per token at each level, finest first."""
        return (self.patch, 2 * self.patch)[: len(self.level_channels)]

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level, finest first."""
        return (self.dim, *self.sparse[1:])

    @property
    def cell(self) -> int:
        """Voxels along each edge of a cell."""
        return 2 * self.patch


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderSettings:
    """The light decoder; one entry a scale, coarsest first, each next one at half the stride."""

    widths: tuple[int, ...] = (128, 64)
    """Channels of each scale of the light decoder, coarsest first, each next one at half the
    stride."""
    depths: tuple[int, ...] = (2, 1)
    """Blocks of each scale."""
    heads: tuple[int, ...] = (4, 0)
    """Attention heads of each scale; 0: its blocks read their neighbours only.

    If all scales but the coarsest have 0,
    they are decoded only near predicted cells."""
    mlp_ratio: int = 2
    """Width of the hidden layer of a block, over that of the block."""
    densify_kernel: int = 3
    """Kernel of the projection that densifies every scale but the coarsest: 3, or 1 where it would
    outweigh a small encoder."""

    def __post_init__(self) -> None:
        if not len(self.widths) == len(self.depths) == len(self.heads) >= 1:
            raise ModelError(
                f"widths {self.widths}, depths {self.depths} and heads {self.heads} must name the same scales"
            )
        if min(self.depths) < 0 or self.densify_kernel not in (1, 3) or self.mlp_ratio < 1:
            raise ModelError(
                f"depths {self.depths} must not be negative, densify_kernel {self.densify_kernel} must be 1 or 3 and "
                f"mlp_ratio {self.mlp_ratio} at least 1"
            )
        if not self.heads[0]:
            raise ModelError(
                f"heads {self.heads}: the coarsest scale needs attention, or no cell hears of those further than its neighbours"
            )
        attending = [(w, h) for w, h in zip(self.widths, self.heads, strict=True) if h]
        check_heads(tuple(w for w, _ in attending), tuple(h for _, h in attending))


Settings = WaveFormerSettings | ResEncSettings | IsotropicSettings


class EncoderSettings(Protocol):
    """Settings of an encoder of any kind: a frozen dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Setting = int | float | bool | str | Sequence[int]
"""Value of one field of the settings."""

MODELS: dict[str, Settings] = {
    "waveformer_tiny": WaveFormerSettings(channels=(32, 64, 128), depths=(1, 1, 2), heads=(2, 4, 8)),
    "waveformer_small": WaveFormerSettings(channels=(48, 96, 192, 384), depths=(2, 2, 2, 2), heads=(3, 6, 12, 24)),
    "waveformer_base": WaveFormerSettings(channels=(64, 128, 256, 512), depths=(2, 2, 6, 2), heads=(4, 8, 16, 32)),
    "waveformer_large": WaveFormerSettings(channels=(96, 192, 384, 768), depths=(2, 2, 8, 2), heads=(6, 12, 24, 48)),
    "resenc_tiny": ResEncSettings(channels=(16, 32, 64, 96), blocks=(1, 1, 2, 2)),
    "resenc_small": ResEncSettings(channels=(32, 64, 128, 256, 320), blocks=(1, 2, 2, 3, 3)),
    "resenc_l": ResEncSettings(),
    "isotropic_small": IsotropicSettings(patch=16, dim=256, depth=4, heads=8),
    "isotropic_small_8": IsotropicSettings(patch=8, dim=256, depth=4, heads=8),
    "isotropic_base": IsotropicSettings(patch=16, dim=512, depth=8, heads=16),
    "isotropic_large": IsotropicSettings(patch=16, dim=768, depth=12, heads=24),
}
"""Settings of every model that `create_model` knows by name."""

ALIASES = {name.replace("isotropic", "seed_waveformer"): name for name in MODELS if name.startswith("isotropic")}
"""Former names of models, which `create_model` still takes."""

_LARGEST, _MOST_BLOCKS = 1 << 16, 512
"""Bounds of numbers in a description: far above any model here, far below what hurts before a
weight is seen."""


def list_models(pattern: str = "*") -> list[str]:
    """Names that `create_model` knows.

    >>> list_models("wave*tiny")
    ['waveformer_tiny']
    """
    return sorted(name for name in MODELS if fnmatchcase(name, pattern))


def model_settings(name: str, **changes: Setting) -> Settings:
    """Return the settings of a named model with some fields changed.

    Raises:
        ModelError: if there is no such model or setting, or a value is not possible.
    """
    name = ALIASES.get(name, name)
    if name not in MODELS:
        raise ModelError(
            f"there is no model {name!r}{did_you_mean(name, list(MODELS)) or '.'} Known models: {', '.join(list_models())}"
        )
    base = MODELS[name]
    known = [f.name for f in fields(base)]
    for key in changes:
        if key not in known:
            raise ModelError(f"{name} has no setting {key!r}{did_you_mean(key, known)}")
    values: dict[str, Any] = {**checked_values(type(base), changes)}
    return replace(base, **values)


def checked_values(cls: type, values: Mapping[str, object]) -> dict[str, Setting]:
    """Return the values of a settings class, each of the type that its field names, numbers within
    bounds.

    Raises:
        ModelError: naming the first that is not.
    """
    hints = get_type_hints(cls)
    checked: dict[str, Any] = {}
    for key, value in values.items():
        hint = hints[key]
        if isinstance(value, list | tuple) and hint == tuple[int, ...]:
            fine = len(value) <= 16 and all(is_whole(v, 0) for v in value)
            fine = fine and (key not in ("depths", "blocks") or sum(value) <= _MOST_BLOCKS)
        elif hint is int:
            fine = is_whole(value, 0) and (key != "depth" or value <= _MOST_BLOCKS)
        elif hint is float:
            fine = isinstance(value, int | float) and not isinstance(value, bool)
        else:
            fine = isinstance(hint, type) and isinstance(value, hint) and len(str(value)) <= 64
        if not fine:
            raise ModelError(f"{key} = {str(value)[:80]} is not possible here")
        checked[key] = tuple(value) if isinstance(value, list) else value
    return checked


class Description(TypedDict):
    """Everything that makes the same network again, in plain values, ready for JSON."""

    kind: str
    """`waveformer`, `resenc` or `isotropic`."""
    settings: dict[str, Setting]
    stems: dict[str, int]
    """Channels of a crop for each modality."""


class FeatureInfo(TypedDict):
    """One level of an encoder, with the names that timm uses."""

    num_chs: int
    """Channels."""
    reduction: int
    """Voxels per token."""
    module: str


def is_whole(value: object, least: int) -> TypeGuard[int]:
    """Return True if a value is an integer between `least` and the largest number that a
    description may name."""
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= _LARGEST


SeedWaveFormerSettings = IsotropicSettings
"""Former name, kept for code that uses it."""
