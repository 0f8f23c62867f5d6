"""Everything that decides a pre-training run. Every key is read; an unknown one is refused (law I29)."""

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
    """One of `wavespark.list_models()`."""
    drop_path: float = Field(0.0, ge=0, lt=1)
    """Stochastic depth: the probability to leave out the last block of the encoder, falling linearly to zero at the first."""
    settings: dict[str, bool | int | float | str | list[int]] = Field(default_factory=dict)
    """Changes to the settings that the name stands for, e.g. `{ multi_scale = true }`."""
    init: str = ""
    """An export, a run or a safetensors file whose encoder weights the run begins with; empty = fresh ones."""
    init_partial: bool = False
    """Allow partial loading; missing and unexpected keys are logged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DecoderChoice(DecoderSettings):
    """The decoder of pre-training. All settings but `kind` shape the light decoder; one entry a scale, coarsest first."""

    kind: Literal["light", "unet"] = "light"
    """unet: the decoder that segmentation uses later, pre-trained and exported with the encoder; dense, at full
    resolution, and several times as expensive."""

    def for_model(self) -> "DecoderSettings | Literal['unet']":
        """Return the decoder argument of `SparK`."""
        return "unet" if self.kind == "unet" else self


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
    augmentation: Augmentation = Augmentation()
    """Augmentation of training crops."""

    @model_validator(mode="before")
    @classmethod
    def _accept_earlier_names(cls, values: Any) -> Any:
        """Accept the names that augmentation had before it was a table of its own, e.g. `data.flip`."""
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
    """Return a document of settings, e.g. the config.toml of an older run, with the names of this version."""
    data = document.get("data")
    return {**document, "data": renamed_data(data)} if isinstance(data, Mapping) else dict(document)


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
        """Voxels of the store that a training sample covers along D, H, W: the crop, larger where a second view needs finer voxels."""
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
