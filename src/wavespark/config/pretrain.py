"""Settings of a pre-training run. Every key is used; unknown keys are errors."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from wavespark.config.objective import HealthSettings, MaskSettings, ObjectiveSettings
from wavespark.masking.grid import check_masking
from wavespark.models.settings import DecoderSettings, model_settings
from wavespark.sampling.augmentation import Augmentation
from wavespark.settings import Settings
from wavespark.shapes import Triple, as_triple, ceil_div

if TYPE_CHECKING:
    from wavespark.masking import BlockMasking, MaskPlan
    from wavespark.models import Encoder


class ModelChoice(Settings):
    name: str = "waveformer_tiny"
    """Name of the encoder; `wavespark list` shows all."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth: probability to skip the last block of the encoder, falling linearly to zero
    at the first."""
    settings: dict[str, bool | int | float | str | list[int]] = Field(default_factory=dict)
    """Changes to the named encoder's own settings, e.g. `{ multi_scale = true }`."""
    init: str = ""
    """Export, run or safetensors file with initial encoder weights; empty = random weights."""
    init_partial: bool = False
    """Allow partial loading; missing and unexpected keys are logged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderChoice(DecoderSettings):
    """The decoder of pre-training.

    All settings but `kind` shape the light decoder; one entry a scale, coarsest first.
    """

    kind: Literal["light", "unet"] = "light"
    """unet: the decoder that segmentation uses later, pre-trained and exported with the encoder;
    dense, at full
    resolution, and several times as expensive."""

    def for_model(self) -> "DecoderSettings | Literal['unet']":
        """Return the decoder argument of `SparK`."""
        return "unet" if self.kind == "unet" else self


class DataSettings(Settings):
    crop: Triple = (64, 64, 64)
    """Size of a training crop in voxels along D, H, W."""
    batch: int = Field(4, ge=1)
    """Crops per step, over all processes."""
    workers: int = Field(1, ge=0)
    """Data-loader workers of each training process; the result does not depend on it."""
    held_out_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of patients held out from training."""
    split_from: str = ""
    """Earlier run whose split of patients is kept, whatever the store has gained since."""
    modality_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    """Relative share of batches of each modality; by default its share of the volumes."""
    augmentation: Augmentation = Augmentation()
    """Augmentation of training crops."""

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_names(cls, values: Any) -> Any:
        """Accept the names that augmentation had before it was a table of its own, e.g.

        `data.flip`.
        """
        return renamed_data(values) if isinstance(values, Mapping) else values


EARLIER_NAMES = {
    "intensity_scale": "scale",
    "intensity_shift": "shift",
    "augment_share": "share",
} | {
    name: name
    for name in ("flip", "noise", "rotation_degrees", "zoom", "elastic_mm", "low_resolution_mm", "bias_field", "gamma")
}
"""Keys of the table `data` that now belong to `data.augmentation`, with their names there."""


def renamed_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `data` table with augmentation settings moved to `data.augmentation`.

    Raises:
        ValueError: if a setting is given under its earlier and its present name.
    """
    moved = {EARLIER_NAMES[key]: value for key, value in values.items() if key in EARLIER_NAMES}
    if not moved:
        return dict(values)
    given = values.get("augmentation", {})
    given = dict(given) if isinstance(given, Mapping) else asdict(given)
    if both := sorted(moved.keys() & given.keys()):
        raise ValueError(f"data.augmentation.{both[0]} is also given under its earlier name: leave one of them out")
    return {k: v for k, v in values.items() if k not in EARLIER_NAMES} | {"augmentation": given | moved}


def renamed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a document of settings, e.g. the config.toml of an older run, with the names of this
    version."""
    data = document.get("data")
    return {**document, "data": renamed_data(data)} if isinstance(data, Mapping) else dict(document)


class OptimizerSettings(Settings):
    learning_rate: float = Field(1e-3, gt=0)
    """Peak learning rate of AdamW, for the whole batch: linear warm-up, then half a cosine."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay of matrices; biases, norms and mask tokens have none."""
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    """Decay rates of AdamW's averages of the gradient and of its square."""
    warmup_steps: int = Field(20, ge=0)
    """Steps of the learning-rate warm-up; at most half of the run."""
    final_fraction: float = Field(0.02, ge=0, le=1)
    """Learning rate at the last step, as a fraction of the peak."""
    clip: float = Field(1.0, gt=0)
    """Gradient norm above which gradients are clipped."""
    layer_decay: float = Field(1.0, gt=0, le=1)
    """Factor of the learning rate from each encoder layer to the one below it; the decoder has the
    full rate."""


class RunSettings(Settings):
    steps: int = Field(400, ge=1)
    """Optimizer steps. May grow on the same run folder, which prolongs the run."""
    seed: int = Field(0, ge=0, lt=2**63)
    """Random seed of weights, order of samples, augmentation and masks."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """auto: bf16 on accelerators that support it, fp16 with loss scaling on others, fp32 on a
    CPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: an accelerator if there is one."""
    threads: int = Field(0, ge=0)
    """CPU threads; 0 = all cores, divided among the processes."""
    accumulate: int = Field(1, ge=1)
    """Parts of a batch that are computed one after another (gradient accumulation), to save
    memory."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: each process holds the whole model (ddp), or a shard of weights and optimizer
    (fsdp)."""
    deterministic: bool = False
    """Refuse non-deterministic operations. Runs on a CPU are bit-exact without it."""
    compile: Literal["off", "on", "auto"] = "off"
    """Use torch.compile; auto: on accelerators.

    If it fails the run continues without it and logs why.
    """
    channels_last: bool = False
    """Store convolution weights channels-last, which suits tensor cores."""
    gradient_checkpointing: bool = False
    """Recompute encoder blocks in the backward pass: less memory, about a third more time."""
    checkpoint_every: int = Field(50, ge=1)
    """Steps between checkpoints, and the most that a kill can lose."""
    save_in_background: bool | Literal["auto"] = "auto"
    """Write checkpoints in a thread while training continues; auto: on accelerators.

    A kill can then lose two intervals.
    """
    keep: int = Field(2, ge=2)
    """Number of newest checkpoints to keep."""
    keep_every: int = Field(0, ge=0)
    """Also keep every checkpoint whose step is a multiple of this; 0 = none."""
    validate_every: int = Field(100, ge=1)
    """Steps between validations on held-out crops."""
    held_out_crops: int = Field(8, ge=1)
    """Held-out crops for validation; their masks never change."""
    tensorboard: bool = True
    """Write curves and images for TensorBoard."""
    wandb: bool = False
    """Log to Weights & Biases (extra `wandb`); it uses the network unless configured offline."""
    mlflow: bool = False
    """Log to MLflow (extra `mlflow`), wherever its own configuration points."""


class PretrainSettings(Settings):
    """Settings of a pre-training run."""

    model: ModelChoice = ModelChoice()
    """Encoder."""
    decoder: DecoderChoice = DecoderChoice()
    """Decoder that predicts hidden voxels."""
    data: DataSettings = DataSettings()
    """Training data."""
    mask: MaskSettings = MaskSettings()
    """Masks."""
    objective: ObjectiveSettings = ObjectiveSettings()
    """Loss terms and scoring."""
    health: HealthSettings = HealthSettings()
    """Alarms and the online probe."""
    optimizer: OptimizerSettings = OptimizerSettings()
    """Optimizer and learning-rate schedule."""
    run: RunSettings = RunSettings()
    """Length, device, checkpoints and logging."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        shape, scales = model_settings(self.model.name, **self._own_model_settings), len(self.decoder.widths)
        cell, levels = as_triple(shape.cell), len(shape.level_channels)
        if self.decoder.kind == "light" and scales > levels:
            raise ValueError(f"the decoder names {scales} scale(s), the encoder {self.model.name} has {levels}")
        for ratio in self.mask.schedule.ratios:
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
    def cell(self) -> Triple:
        """Voxels of a cell of the encoder along D, H, W."""
        return as_triple(model_settings(self.model.name, **self._own_model_settings).cell)

    @property
    def box(self) -> Triple:
        """Voxels of the store that a training sample covers along D, H, W: the crop, larger where a
        second view needs finer voxels."""
        d, h, w = (c * f for c, f in zip(self.data.crop, self.objective.join, strict=True))
        return d, h, w

    def mask_plan(self, cell: Triple) -> "MaskPlan":
        """Return the plan of the run's masks for an encoder with cells of that many voxels."""
        from wavespark.masking import MaskPlan

        chosen = self.objective
        d, h, w = (n * f for n, f in zip(chosen.second_view_cells, chosen.second_view_factor, strict=True))
        return MaskPlan(
            grid=ceil_div(self.data.crop, cell),
            schedule=self.mask.schedule,
            block=self.mask.block,
            seed=self.run.seed,
            tile=chosen.second_view_cells if chosen.second_view else None,
            fine_grid=(d, h, w) if chosen.second_view else None,
        )

    def masking(self, cell: Triple) -> "BlockMasking":
        """Return the masking of held-out crops."""
        return self.mask_plan(cell).masking()
