"""Everything that decides a fine-tuning. Every key is read; an unknown one is refused (law I29)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from wavespark.settings import Settings, build, override
from wavespark.shapes import Triple

if TYPE_CHECKING:
    from wavespark.sampling import Augmentation, Sides


class FinetuneData(Settings):
    """What is trained on."""

    crop: Annotated[Triple, Field(min_length=3, max_length=3)] = (64, 64, 64)
    """Voxels along D, H, W of a window, in training and in prediction."""
    batch: int = Field(2, ge=1)
    """Windows of a step, all of one modality."""
    labelled_share: float = Field(0.67, ge=0, le=1)
    """Share of windows that are centred on something labelled; the others lie anywhere in the head."""
    augmentation: Literal["none", "strong"] = "strong"
    """Besides mirroring: `strong` turns, bends, zooms and changes values; `none` does nothing."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability to mirror each axis; labels with a side in their name, and `lateral_pairs`, change places."""
    lateral_pairs: tuple[tuple[int, int], ...] = ()
    """Label values of a segmentation that change places with left and right: [[1, 2]]."""
    held_out_fraction: float = Field(0.34, gt=0, lt=1)
    """Share of patients that are tested on, where the labels have no column `split`."""
    workers: int = Field(2, ge=1)
    """Threads that make windows; the result does not depend on it."""

    @field_validator("crop")
    @classmethod
    def _large_enough(cls, crop: Triple) -> Triple:
        if min(crop) < 8:
            raise ValueError(f"a window needs at least 8 voxels along each axis, got {crop}")
        return crop

    @property
    def sides(self) -> "Sides":
        """The lateral pairs as a value."""
        from wavespark.sampling import Sides

        return Sides(self.lateral_pairs)

    def changes(self) -> "Augmentation":
        """Return the augmentation of training windows."""
        from wavespark.sampling import STRONG, Augmentation

        if self.augmentation == "none":
            return Augmentation(flip=self.flip, scale=0, shift=0, noise=0)
        return Augmentation(
            flip=self.flip,
            rotation_degrees=STRONG.rotation_degrees,
            zoom=STRONG.zoom,
            elastic_mm=STRONG.elastic_mm,
            low_resolution_mm=STRONG.low_resolution_mm,
            bias_field=STRONG.bias_field,
            gamma=STRONG.gamma,
            share=STRONG.share,
        )


class FinetuneOptimizer(Settings):
    """How weights move. AdamW; linear warm-up, then half a cosine."""

    learning_rate: float = Field(1e-3, gt=0)
    """Of the head, and of an encoder from scratch."""
    layer_decay: float = Field(0.75, gt=0, le=1)
    """The learning rate of a pre-trained encoder falls by this factor a stage, from the last to the stem."""
    head_steps: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which only the head is trained, before a pre-trained encoder joins."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled, as of AdamW; biases and norms have none."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    final_fraction: float = Field(0.02, ge=0, le=1)
    """The learning rate ends at this fraction of its peak."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""


class FinetuneRun(Settings):
    """How long and where."""

    steps: int = Field(200, ge=1)
    """Steps of the optimiser."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Decides fresh weights, the split of patients and all windows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the accelerator where there is one."""
    threads: int = Field(0, ge=0)
    """Threads of the CPU; 0 = as many as there are cores."""
    overlap: float = Field(0.25, ge=0, lt=1)
    """Of neighbouring windows in prediction."""


class FinetuneSettings(Settings):
    """A fine-tuning."""

    frozen: bool = False
    """The encoder stays as it is; only the head is trained."""
    decoder: Literal["light", "full", "linear"] = "light"
    """Of segmentation and detection. `full`: the published one of the encoder, several times the work of the encoder itself. `light`: a small feature pyramid.
    `linear`: every voxel read off the features by one linear layer."""
    data: FinetuneData = FinetuneData()
    """What is trained on."""
    optimizer: FinetuneOptimizer = FinetuneOptimizer()
    """How weights move."""
    run: FinetuneRun = FinetuneRun()
    """How long and where."""


def finetune_settings(words: Sequence[str] = (), **defaults: object) -> FinetuneSettings:
    """The settings with `key=value` words laid over the defaults.

    >>> finetune_settings(["run.steps=50"], frozen=True).run.steps
    50

    Raises:
        SettingsError: if a key is unknown or a value impossible; all mistakes at once.
    """
    return build(FinetuneSettings, override(defaults, words), "fine-tuning")
