"""Everything that decides a pre-training run. Every key is read; an unknown one is refused (law I29)."""

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wavespark.config.objective import HealthSettings, MaskSettings, ObjectiveSettings
from wavespark.masking.grid import check_masking
from wavespark.models.settings import DecoderSettings, model_settings
from wavespark.settings import Settings
from wavespark.shapes import Triple, as_triple, ceil_div

if TYPE_CHECKING:
    from wavespark.masking import BlockMasking
    from wavespark.models import Encoder
    from wavespark.sampling import Augmentation


class ModelChoice(Settings):
    name: str = "waveformer_tiny"
    """One of `wavespark.list_models()`."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth: the probability to leave out the last block of the encoder, falling linearly to zero at the first."""
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
    """Channels of each scale of the light decoder, coarsest first, each next one at half the stride."""
    depths: tuple[int, ...] = (2, 1)
    """Blocks of each scale."""
    heads: tuple[int, ...] = (4, 0)
    """Attention heads of each scale; 0: its blocks read their neighbours only."""
    mlp_ratio: int = Field(2, ge=1)
    """Width of the hidden layer of a block, over that of the block."""
    densify_kernel: Literal[1, 3] = 3
    """Of the projection that densifies every scale but the coarsest: 3, or 1 where a small encoder would be outweighed by it."""

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
    """Probability to mirror each axis."""
    intensity_scale: float = Field(0.1, ge=0, lt=1)
    """Values are multiplied by a factor from 1 less this to 1 plus this (MR only)."""
    intensity_shift: float = Field(0.1, ge=0)
    """A constant of at most this, either way, is added (MR only)."""
    noise: float = Field(0.02, ge=0)
    """Standard deviation of added Gaussian noise, at most."""
    rotation_degrees: float = Field(0.0, ge=0, le=180)
    """Turned about each axis by up to this much."""
    zoom: float = Field(0.0, ge=0, le=0.5)
    """Enlarged or made smaller by up to this share."""
    elastic_mm: float = Field(0.0, ge=0, le=8)
    """Bent: control points 32 mm apart move by up to this along each axis."""
    low_resolution_mm: float = Field(0.0, ge=0, le=20)
    """One axis as if acquired with voxels up to this long."""
    bias_field: float = Field(0.0, ge=0, le=2)
    """Logarithm of the largest gain of a smooth field of coil sensitivity (MR only)."""
    gamma: float = Field(0.0, ge=0, le=2)
    """Logarithm of the largest exponent of a contrast curve (MR only)."""
    augment_share: float = Field(0.2, ge=0, le=1)
    """Probability of each of the six above in a crop. What each means: `wavespark.sampling.augment.Augmentation`."""

    def augmentation(self) -> "Augmentation":
        from wavespark.sampling import Augmentation

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
    """The peak, for the whole batch; AdamW, linear warm-up, then half a cosine."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled, as of AdamW; biases, norms and tokens have none."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay of the averages of the gradient and of its square."""
    warmup_steps: int = Field(20, ge=0)
    """Steps in which the learning rate rises."""
    final_fraction: float = Field(0.02, ge=0, le=1)
    """The learning rate ends at this fraction of its peak (half a cosine)."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """The learning rate of a layer of the encoder is this times that of the layer above it; the decoder has the full one."""


class RunSettings(Settings):
    steps: int = Field(400, ge=1)
    """Steps of the optimiser."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Decides fresh weights, the order of samples, their augmentation and their masks."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on an accelerator that has it, fp16 with loss scaling on one that has not, fp32 on a CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the accelerator where there is one."""
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
    """Steps between checkpoints; a kill loses at most these."""
    save_in_background: bool | Literal["auto"] = "auto"
    """Write checkpoints while training goes on; auto: on an accelerator. A kill then costs up to two intervals of checkpoints instead of one."""
    keep: int = Field(2, ge=2)
    """Newest checkpoints that are kept."""
    keep_every: int = Field(0, ge=0)
    """Checkpoints of steps that are a multiple of this are kept for good; 0 = none."""
    validate_every: int = Field(100, ge=1)
    """Steps between measures of health on held-out crops."""
    held_out_crops: int = Field(8, ge=1)
    """Crops of held-out patients for them, with masks that stay the same."""
    tensorboard: bool = True
    """Also write curves and pictures for TensorBoard."""
    wandb: bool = False
    """Also log to Weights & Biases (extra `wandb`), which uses the network unless its own settings say offline."""
    mlflow: bool = False
    """Also log to MLflow (extra `mlflow`), wherever its own settings point."""


class PretrainSettings(Settings):
    """A pre-training run."""

    model: ModelChoice = ModelChoice()
    """The encoder."""
    decoder: DecoderChoice = DecoderChoice()
    """What predicts hidden voxels from its features."""
    data: DataSettings = DataSettings()
    """What is trained on."""
    mask: MaskSettings = MaskSettings()
    """What is hidden."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """What is predicted and how it is scored."""
    health: HealthSettings = HealthSettings()
    """What is watched."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """How weights move."""
    run: RunSettings = RunSettings()
    """How long, where and what is kept."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        shape, scales = model_settings(self.model.name, **self._own_model_settings), len(self.decoder.widths)
        cell, levels = as_triple(shape.cell), len(shape.level_channels)
        self.decoder.settings()
        if self.decoder.kind == "light" and scales > levels:
            raise ValueError(f"the decoder names {scales} scale(s), the encoder {self.model.name} has {levels}")
        for ratio in self.mask.ratios:
            check_masking(ceil_div(self.data.crop, cell), ratio, self.mask.block)
        self.objective.check_second_view(self.data.crop, cell, self.mask)
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

    def encoder(self, stems: dict[str, int]) -> "Encoder":
        """Create the encoder with fresh weights."""
        from wavespark.models import create_model

        return create_model(self.model.name, stems=stems, **self._own_model_settings)

    @property
    def _own_model_settings(self) -> dict[str, Any]:
        own: dict[str, Any] = {**self.model.settings, "drop_path": self.model.drop_path}
        return own | ({"gradient_checkpointing": True} if self.run.gradient_checkpointing else {})

    @property
    def box(self) -> Triple:
        """Voxels of the store that a training sample covers along D, H, W: the crop, larger where a second view needs finer voxels."""
        d, h, w = (c * f for c, f in zip(self.data.crop, self.objective.join, strict=True))
        return d, h, w

    def masking(self, cell: Triple) -> "BlockMasking":
        """Return the masking of a crop's grid."""
        from wavespark.masking import BlockMasking

        return BlockMasking(grid=ceil_div(self.data.crop, cell), ratio=self.mask.ratio, block=self.mask.block)
