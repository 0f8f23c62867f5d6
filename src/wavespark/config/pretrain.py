"""Everything that decides a pre-training run. Every key is read; an unknown one is refused (law I29)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from wavespark.masking import BlockMasking
from wavespark.models import DecoderSettings, WaveFormer, create_model
from wavespark.prepare.settings import Settings
from wavespark.sampling.augment import Augmentation
from wavespark.shapes import Triple, ceil_div


class ModelChoice(Settings):
    name: str = "waveformer_tiny"
    drop_path: float = Field(0.0, ge=0, lt=1)


class DecoderChoice(Settings):
    widths: tuple[int, ...] = (128, 64)
    depths: tuple[int, ...] = (2, 1)
    heads: tuple[int, ...] = (4, 2)
    mlp_ratio: int = Field(2, ge=1)

    def settings(self) -> DecoderSettings:
        return DecoderSettings(**self.model_dump())


class DataSettings(Settings):
    crop: Triple = (64, 64, 64)
    """Voxels along D, H, W."""
    batch: int = Field(4, ge=1)
    """Crops a step, over all processes."""
    workers: int = Field(1, ge=0)
    """Loader processes of each training process; the result does not depend on it."""
    held_out_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of patients that are never trained on."""
    modality_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Relative share of batches of each modality; by default that of its volumes."""
    flip: float = Field(0.5, ge=0, le=1)
    intensity_scale: float = Field(0.1, ge=0, lt=1)
    intensity_shift: float = Field(0.1, ge=0)
    noise: float = Field(0.02, ge=0)

    def augmentation(self) -> Augmentation:
        return Augmentation(flip=self.flip, scale=self.intensity_scale, shift=self.intensity_shift, noise=self.noise)


class MaskSettings(Settings):
    ratio: float = Field(0.6, gt=0, lt=1)
    """Share of cells that are hidden."""
    block: int | Literal["adaptive"] = 1
    """Cells along each edge of what is hidden together."""


class ObjectiveSettings(Settings):
    variance_floor: float = Field(1e-3, ge=0)
    """A cell's channel that varies less (squared units of the prepared volume) is not scored."""


class OptimizerSettings(Settings):
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    warmup_steps: int = Field(20, ge=0)
    final_fraction: float = Field(0.02, ge=0, le=1)
    """The learning rate ends at this fraction of its peak (half a cosine)."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""


class RunSettings(Settings):
    steps: int = Field(400, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on an accelerator that has it, fp16 with loss scaling on one that has not, fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0)
    """Threads of the CPU; 0 = as many as there are cores."""
    checkpoint_every: int = Field(50, ge=1)
    keep: int = Field(2, ge=2)
    """Newest checkpoints that are kept."""
    validate_every: int = Field(100, ge=1)
    held_out_crops: int = Field(8, ge=1)
    tensorboard: bool = True


class PretrainSettings(Settings):
    """A pre-training run."""

    model: ModelChoice = ModelChoice()
    decoder: DecoderChoice = DecoderChoice()
    data: DataSettings = DataSettings()
    mask: MaskSettings = MaskSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        encoder, scales = self.encoder({"MR": 1}), len(self.decoder.settings().widths)
        if scales > len(encoder.channels):
            raise ValueError(f"the decoder names {scales} scale(s), the encoder {self.model.name} has {len(encoder.channels)}")
        self.masking(encoder.cell)
        return self

    def encoder(self, stems: dict[str, int]) -> WaveFormer:
        """A fresh encoder."""
        return create_model(self.model.name, stems=stems, drop_path=self.model.drop_path)

    def masking(self, cell: Triple) -> BlockMasking:
        """The masking of a crop's grid."""
        return BlockMasking(grid=ceil_div(self.data.crop, cell), ratio=self.mask.ratio, block=self.mask.block)
