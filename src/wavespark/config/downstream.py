"""Settings of fine-tuning. Every key is read; an unknown one is refused (law I29)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from wavespark.settings import Settings, build, override
from wavespark.shapes import Triple

if TYPE_CHECKING:
    from wavespark.sampling import Augmentation, Sides

STRONG_FROM = 1000
"""Steps from which `data.augmentation=auto` is `strong`.

With 300 steps mirroring alone was 5 points of Dice better (docs/LEDGER.md).
"""

Rate = Annotated[float, Field(gt=0)] | Literal["auto"]


class FinetuneData(Settings):
    """Training windows and the split of patients."""

    crop: Annotated[Triple, Field(min_length=3, max_length=3)] = (64, 64, 64)
    """Voxels along D, H, W of a window, in training and in prediction."""
    batch: int = Field(2, ge=1)
    """Windows in a step, all of one modality."""
    labelled_share: float = Field(0.67, ge=0, le=1)
    """Share of windows that contain a voxel of a class (classes drawn evenly) or a point; the
    others lie anywhere in the head."""
    augmentation: Literal["auto", "none", "strong"] = "auto"
    """Changes of a window besides mirroring.

    `none`: no change. `strong`: rotation, zoom, bending, blur and contrast. `auto`: `strong` from
    1000 steps on.
    """
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of mirroring each axis; labels with a side in their name, and `lateral_pairs`,
    change places."""
    lateral_pairs: tuple[tuple[int, int], ...] = ()
    """Label values of a segmentation that change places with left and right: [[1, 2]]."""
    held_out_fraction: float = Field(0.34, gt=0, lt=1)
    """Share of patients in the test set, where the labels have no column `split`."""
    workers: int = Field(2, ge=1)
    """Threads that prepare windows; the result does not depend on their number."""

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

    def changes(self, steps: int) -> "Augmentation":
        """Return the augmentation of training windows.

        Args:
            steps: length of the training; decides where `augmentation` is `auto`.
        """
        from wavespark.sampling import STRONG, Augmentation

        strong = steps >= STRONG_FROM if self.augmentation == "auto" else self.augmentation == "strong"
        return replace(STRONG if strong else Augmentation(scale=0, shift=0, noise=0), flip=self.flip)


class FinetuneOptimizer(Settings):
    """AdamW with linear warm-up and half a cosine."""

    learning_rate: Rate = "auto"
    """Peak for the head, and for an encoder from scratch.

    `auto`: the default for the task and the kind of encoder.
    """
    plain_learning_rate: Rate = "auto"
    """Peak for the plain U-Net."""
    layer_decay: float = Field(0.85, gt=0, le=1)
    """The learning rate of a pre-trained encoder falls by this factor from each block to the one
    below, down to the stem."""
    head_steps: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which only the head is trained, before a pre-trained encoder joins."""
    weight_decay: float = Field(0.05, ge=0)
    """Decoupled weight decay; biases and norms have none."""
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises."""
    final_fraction: float = Field(0.02, ge=0, le=1)
    """The learning rate ends at this fraction of its peak."""
    clip: float = Field(1.0, gt=0)
    """Largest gradient norm."""


class FinetuneRun(Settings):
    """Length, seed and device."""

    steps: int = Field(300, ge=1)
    """Steps of the optimiser."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Random seed of fresh weights, of the split of patients and of all windows."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: the accelerator if there is one."""
    threads: int = Field(0, ge=0)
    """CPU threads of the command line; 0 = all cores."""
    overlap: float = Field(0.25, ge=0, lt=1)
    """Overlap of neighbouring windows in prediction."""


class FinetuneSettings(Settings):
    """Settings of a fine-tuning."""

    frozen: bool = False
    """Train the head only and leave the encoder unchanged."""
    decoder: Literal["light", "full", "linear"] = "light"
    """Decoder of segmentation and detection.

    `light`: a small feature pyramid. `full`: the published decoder of the encoder, several times
    the work of
    the encoder itself; the command line takes it by default where it was pre-trained with the
    encoder. `linear`: one linear layer."""
    class_prior: bool = False
    """Segmentation: begin at the class frequencies of the labelled volumes instead of at equal
    ones. Not shown to help: a rare class may start too low."""
    data: FinetuneData = FinetuneData()
    """Training windows."""
    optimizer: FinetuneOptimizer = FinetuneOptimizer()
    """Optimiser."""
    run: FinetuneRun = FinetuneRun()
    """Length, seed and device."""


def finetune_settings(words: Sequence[str] = (), **defaults: object) -> FinetuneSettings:
    """Settings of a fine-tuning, with `key=value` words laid over the defaults.

    >>> finetune_settings(["run.steps=50"], frozen=True).run.steps
    50

    Raises:
        SettingsError: if a key is unknown or a value impossible; all mistakes at once.
    """
    return build(FinetuneSettings, override(defaults, words), "fine-tuning")
