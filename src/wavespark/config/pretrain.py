"""Everything that decides a pre-training run. Every key is read; an unknown one is refused (law I29)."""

from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator

from wavespark.config.objective import HealthSettings, MaskSettings, ObjectiveSettings
from wavespark.masking import BlockMasking
from wavespark.models import DecoderSettings, Encoder, create_model
from wavespark.prepare.settings import Settings
from wavespark.sampling.augment import Augmentation
from wavespark.shapes import Triple, ceil_div


class ModelChoice(Settings):
    name: str = "waveformer_tiny"
    drop_path: float = Field(0.0, ge=0, lt=1)
    settings: dict[str, bool | int | float | str | list[int]] = Field(default_factory=dict)
    """Changes to the settings that the name stands for, e.g. `{ multi_scale = true }`."""
    init: str = ""
    """An export, a run or a safetensors file whose encoder weights the run begins with; empty = fresh ones."""
    init_partial: bool = False
    """Begin also if some weights do not fit; which, is said."""


class DecoderChoice(Settings):
    kind: Literal["light", "unet"] = "light"
    """unet: the decoder that segmentation uses later, pre-trained and exported with the encoder; dense, at full resolution, and priced so."""
    widths: tuple[int, ...] = (128, 64)
    depths: tuple[int, ...] = (2, 1)
    heads: tuple[int, ...] = (4, 0)
    mlp_ratio: int = Field(2, ge=1)
    densify_kernel: Literal[1, 3] = 3

    def settings(self) -> DecoderSettings | Literal["unet"]:
        """What `SparK` takes."""
        return "unet" if self.kind == "unet" else DecoderSettings(**self.model_dump(exclude={"kind"}))


class DataSettings(Settings):
    crop: Triple = (64, 64, 64)
    """Voxels along D, H, W."""
    batch: int = Field(4, ge=1)
    """Crops a step, over all processes."""
    workers: int = Field(1, ge=0)
    """Loader processes of each training process; the result does not depend on it."""
    held_out_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of patients that are never trained on."""
    split_from: str = ""
    """An earlier run: patients that it held out are held out, those that it trained on are trained on, whatever the store has gained since."""
    modality_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Relative share of batches of each modality; by default that of its volumes."""
    flip: float = Field(0.5, ge=0, le=1)
    intensity_scale: float = Field(0.1, ge=0, lt=1)
    intensity_shift: float = Field(0.1, ge=0)
    noise: float = Field(0.02, ge=0)
    rotation_degrees: float = Field(0.0, ge=0, le=180)
    zoom: float = Field(0.0, ge=0, le=0.5)
    elastic_mm: float = Field(0.0, ge=0, le=8)
    low_resolution_mm: float = Field(0.0, ge=0, le=20)
    bias_field: float = Field(0.0, ge=0, le=2)
    gamma: float = Field(0.0, ge=0, le=2)
    augment_share: float = Field(0.2, ge=0, le=1)
    """Probability of each of the six above in a crop. What each means: `wavespark.sampling.augment.Augmentation`."""

    def augmentation(self) -> Augmentation:
        return Augmentation(
            flip=self.flip,
            scale=self.intensity_scale,
            shift=self.intensity_shift,
            noise=self.noise,
            rotation_degrees=self.rotation_degrees,
            zoom=self.zoom,
            elastic_mm=self.elastic_mm,
            low_resolution_mm=self.low_resolution_mm,
            bias_field=self.bias_field,
            gamma=self.gamma,
            share=self.augment_share,
        )


class OptimizerSettings(Settings):
    learning_rate: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    warmup_steps: int = Field(20, ge=0)
    final_fraction: float = Field(0.02, ge=0, le=1)
    """The learning rate ends at this fraction of its peak (half a cosine)."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """The learning rate of a layer of the encoder is this times that of the layer above it; the decoder has the full one."""


class RunSettings(Settings):
    steps: int = Field(400, ge=1)
    seed: int = Field(0, ge=0, lt=2**63)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on an accelerator that has it, fp16 with loss scaling on one that has not, fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int = Field(0, ge=0)
    """Threads of the CPU; 0 = as many as there are cores (for each process its part)."""
    accumulate: int = Field(1, ge=1)
    """Parts into which a batch is cut, one after the other, where it does not fit into memory at once."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: every process holds the whole model (ddp), or its part of weights and optimiser (fsdp)."""
    deterministic: bool = False
    """Refuse operations whose result is not always the same; what a CPU computes is the same to the bit also without."""
    compile: Literal["off", "on", "auto"] = "off"
    """torch.compile; auto: on an accelerator. Where it fails the run goes on without, and says why."""
    channels_last: bool = False
    """Keep convolution weights with their channels innermost, which suits tensor cores."""
    gradient_checkpointing: bool = False
    """Compute the blocks of the encoder again in the backward pass instead of keeping what they computed: less memory, about a third more time."""
    checkpoint_every: int = Field(50, ge=1)
    save_in_background: bool | Literal["auto"] = "auto"
    """Write checkpoints while training goes on; auto: on an accelerator. A kill then costs up to two intervals of checkpoints instead of one."""
    keep: int = Field(2, ge=2)
    """Newest checkpoints that are kept."""
    keep_every: int = Field(0, ge=0)
    """Checkpoints of steps that are a multiple of this are kept for good; 0 = none."""
    validate_every: int = Field(100, ge=1)
    held_out_crops: int = Field(8, ge=1)
    tensorboard: bool = True
    wandb: bool = False
    """Also log to Weights & Biases (extra `wandb`), which uses the network unless its own settings say offline."""
    mlflow: bool = False
    """Also log to MLflow (extra `mlflow`), wherever its own settings point."""


class PretrainSettings(Settings):
    """A pre-training run."""

    model: ModelChoice = ModelChoice()
    decoder: DecoderChoice = DecoderChoice()
    data: DataSettings = DataSettings()
    mask: MaskSettings = MaskSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    health: HealthSettings = HealthSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    run: RunSettings = RunSettings()

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        with torch.device("meta"):  # a check of settings takes no memory for weights
            encoder, scales = self.encoder({"MR": 1}), len(self.decoder.widths)
        self.decoder.settings()
        if self.decoder.kind == "light" and scales > len(encoder.channels):
            raise ValueError(
                f"the decoder names {scales} scale(s), the encoder {self.model.name} has {len(encoder.channels)}"
            )
        for ratio in self.mask.ratios:
            BlockMasking(grid=ceil_div(self.data.crop, encoder.cell), ratio=ratio, block=self.mask.block)
        self.objective.check_second_view(self.data.crop, encoder.cell, self.mask)
        if self.objective.contrast and self.run.parallel == "fsdp":
            raise ValueError(
                "objective.contrast has weights of its own, which run.parallel='fsdp' does not share out: use 'ddp'"
            )
        if self.objective.contrast and self.run.accumulate > 1:
            raise ValueError(
                "objective.contrast compares all samples of a batch, which run.accumulate would cut: leave it at 1"
            )
        if self.data.batch % self.run.accumulate:
            raise ValueError(
                f"data.batch {self.data.batch} cannot be cut into run.accumulate {self.run.accumulate} equal parts"
            )
        return self

    def encoder(self, stems: dict[str, int]) -> Encoder:
        """A fresh encoder."""
        own: dict[str, Any] = {**self.model.settings, "drop_path": self.model.drop_path}
        if self.run.gradient_checkpointing:
            own["gradient_checkpointing"] = True
        return create_model(self.model.name, stems=stems, **own)

    @property
    def box(self) -> Triple:
        """Voxels of the store that a training sample covers along D, H, W: the crop, larger where a second view needs finer voxels."""
        d, h, w = (c * f for c, f in zip(self.data.crop, self.objective.join, strict=True))
        return d, h, w

    def masking(self, cell: Triple) -> BlockMasking:
        """The masking of a crop's grid."""
        return BlockMasking(grid=ceil_div(self.data.crop, cell), ratio=self.mask.ratio, block=self.mask.block)
