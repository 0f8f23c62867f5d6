"""The parts of the page below the first screen."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from wavespark.pages.chart import Curve, Level, chart, side_by_side, smoothed
from wavespark.pages.markup import Html, foldable, join, tag
from wavespark.pages.numbers import count
from wavespark.report.figures import case_tables
from wavespark.report.health import levels, probes
from wavespark.report.record import RunRecord
from wavespark.report.tables import by_modality, document_table, validations
from wavespark.report.values import finite, mapping
from wavespark.report.viewer import library, start_script
from wavespark.report.whole import other_slices

_FEW = 20
"""With fewer volumes than this the page says that many would tell more."""

_CONVENTION = """
Crops that no training crop touches. Visible voxels are copied from the original; only hidden cells are predicted.
Each row is a slice, shown as radiologists do: the patient's right (R) is on the left of axial and coronal pictures,
anterior (A) is up on axial and to the left on sagittal ones, superior (S) is up. All grey pictures of a case have
the same window. Blue cells were hidden from the encoder. Slices are chosen by the mask alone, where hidden and
visible tissue are both plentiful. Errors are absolute, on hidden foreground only, in the units of the prepared
volume.
"""

_TERMS = {
    "Cell": """The block of voxels that is hidden or visible as a whole. Hidden cells never enter the
        encoder.""",
    "Foreground": """Voxels of the head, as preparation found them. Only cells with enough of it are
        targets, and only its voxels are scored.""",
    "Normalised loss": """The sum of (prediction − target)² over hidden foreground voxels, divided by the
        sum of (target − mean target)² over the same voxels. Targets are normalised in every cell, so the
        brightness and contrast of a cell are not part of it. 1 is what predicting the mean gives; 0 is
        perfect.""",
    "Held out": """Measured on crops that no training crop touches, with masks that stay the same from one
        measurement to the next.""",
    "Trilinear inpainting": """Hidden voxels interpolated linearly from the visible ones around them, scored
        in the same units: what needs no learning.""",
    "Inpainting, own mean": """The same after shifting every hidden cell to its true mean, which nobody is
        told in use: a harder baseline.""",
    "Harmonic inpainting": """Hidden voxels such that each is the mean of its six neighbours, the smoothest
        interpolation there is, also shifted to the true mean of every cell: the hardest baseline without learning.""",
    "Effective rank": """How many independent directions the features of held-out crops use. When it
        collapses, so has the encoder.""",
    "Alignment": """How far apart the features of a place are under two masks, between 0 (the same) and about 2
        (unrelated), after taking out their mean. Small is good only while the effective rank is not.""",
    "Probe": """Frozen features of a few fixed crops, all cells visible, averaged over the head; a model that tells
        a label from them is fitted on some patients and tried on others.""",
    "Visible and hidden share": """Shares of the valid cells of a batch, counted at every step.""",
    "Mean absolute error": """Under each case: the mean of |prediction − original| over hidden foreground,
        in the units of the prepared volume (not normalised per cell).""",
}

_LIMITS = (
    """Whether the encoder helps in a task. Filling in hidden tissue is a means; only a probe or a fine-tuning beside a
    network trained from scratch tells.""",
    """Anything about disease. Nothing here finds, rules out or measures a finding, and a reconstruction is a guess at
    what is typical, not a picture of a patient.""",
    """Sharpness. A squared error rewards blurred averages; fine vessels can be missing while the loss is low.""",
)
_SAME_PEOPLE = "How it does on other people. The held-out region belongs to volumes whose other parts were trained on."


def reconstructions(record: RunRecord) -> Html:
    """Cases in three planes: what was seen, what was made of it, and how far off it is."""
    examples = record.examples
    if examples is None:
        return tag("p", "There is no reconstruction to show yet.")
    tables = case_tables(examples)
    note = tag("p", examples.note) if examples.note else None
    some = f"{len(tables)} of {count(examples.total, 'case')} shown."
    rest = tag("p", some, class_="note") if len(tables) < examples.total else None
    more = other_slices(record.whole) if record.whole else None
    return join(more, tag("h3", "Single crops"), tag("p", _CONVENTION), note, library(), *tables, start_script(), rest)


def curves(record: RunRecord) -> Html:
    """How the losses, the features and the optimiser went."""
    steps = record.metrics.steps.astype(np.float64)
    at = np.array([float(v["step"]) for v in record.validations])

    def held_out(key: str, label: str, look: str = "validation") -> Curve:
        values: list[float | None] = [finite(v, key) for v in record.validations]
        y: npt.NDArray[np.float64] = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        return Curve(label=label, x=at, y=y, look=look, dots=look == "validation", guide=look != "validation")

    def baseline(key: str, label: str, look: str) -> Curve:
        measured = held_out(key, label, look)
        if not len(at):
            return measured
        end = np.array([float(record.step)])  # A baseline does not train: its last value holds to the end.
        return replace(measured, x=np.concatenate([at, end]), y=np.concatenate([measured.y, measured.y[-1:]]))

    def training(key: str, label: str, look: str = "validation") -> Curve:
        return Curve(label=label, x=steps, y=record.metrics[key], look=look)

    def with_mean(key: str, kind: str = "") -> list[Curve]:
        each = training(key, f"{kind}each step", "training")
        mean, over = smoothed(each.y)
        return [each, replace(each, label=f"{kind}mean of {count(over, 'step')}", y=mean, look="smooth")]

    loss = chart(
        "Normalised loss",
        [
            *with_mean("normalised_loss", "training, "),
            baseline("inpainting", "trilinear inpainting, held out", "inpainting"),
            baseline("inpainting_own_mean", "inpainting granted the true mean, held out", "third"),
            baseline("harmonic_own_mean", "harmonic inpainting granted the true mean, held out", "second"),
            held_out("normalised_loss", "held out"),
        ],
        levels=(Level(value=1.0, label="1 = predicting the mean"),),
        note="Lower is better.",
        tall=True,
    )
    rank, spread = held_out("effective_rank", "effective rank"), held_out("feature_std", "feature std")
    shares = [training("visible_share", "visible"), training("hidden_share", "hidden", "second")]
    collapse = "Held out. A fall under a quarter of its start is a sign of collapse."
    small = (
        chart("Effective rank of the features", [rank], floor=0.0, note=collapse),
        chart("Standard deviation of the features", [spread], floor=0.0, note="Held out."),
        chart("Learning rate", [training("learning_rate", "learning rate")], floor=0.0),
        chart("Shares of cells", shares, floor=0.0, ceiling=1.0, note="As drawn at every step."),
        chart("Gradient norm before clipping", with_mean("gradient_norm"), floor=0.0),
        chart("Seconds a step", with_mean("seconds"), floor=0.0),
    )
    if loss is None and not any(small):
        return tag("p", "There is nothing to draw yet.")
    return join(loss, side_by_side(*small), by_modality(record), levels(record), probes(record), validations(record))


def settings(record: RunRecord) -> Html:
    """Return the section on settings and machine."""
    parts = []
    if record.settings:
        parts.append(foldable("Settings as they were resolved", document_table(record.settings, "Settings")))
    if record.environment:
        table = document_table(record.environment, "Environment", ("What", "Version or value"))
        parts.append(foldable("Environment", table))
    return join(*parts) if parts else tag("p", "Not known: config.toml and environment.json are missing.")


def definitions() -> Html:
    """Every number of the page in words."""
    pairs = (join(tag("dt", term), tag("dd", meaning)) for term, meaning in _TERMS.items())
    return tag("dl", *pairs, class_="terms")


def limits(record: RunRecord) -> Html:
    """Return the section on what this page does not show."""
    points = list(_LIMITS)
    if mapping(record.data, "held_out").get("kind") in ("region", "both"):
        points.insert(0, _SAME_PEOPLE)
    used = finite(record.data, "used")
    if used is not None and used < _FEW:
        points.append(f"What many volumes would give. This run used {count(used, 'volume')}.")
    return tag("ul", *(tag("li", point) for point in points))
