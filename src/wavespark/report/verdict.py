"""Did it learn? The answer in words, and the numbers behind it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from wavespark.limits import LEARNED, RANK_LEFT
from wavespark.pages.numbers import count, number
from wavespark.report.record import RunRecord
from wavespark.report.values import finite, sequence


@dataclass(frozen=True)
class Verdict:
    """The answer."""

    learned: str
    """`yes`, `partly`, `no` or `unknown`."""
    title: str
    """The answer in a few words."""
    sentences: tuple[str, ...]
    """The numbers that carry it."""
    warnings: tuple[str, ...] = ()
    """Warnings to read before trusting the verdict."""


def judge(record: RunRecord) -> Verdict:
    """The verdict on a run: against predicting the mean, and against inpainting from the same
    visible voxels."""
    before, after = finite(record.first, "normalised_loss"), finite(record.last, "normalised_loss")
    warnings = _warnings(record)
    if after is None:
        return Verdict("unknown", "Not known yet.", ("Nothing held out has been measured in this run yet.",), warnings)
    inpainting, own_mean = finite(record.last, "inpainting"), finite(record.last, "inpainting_own_mean")
    went = f"went from {number(before)} to {number(after)}" if moved(record) else f"is {number(after)}"
    sentences = [f"On held-out hidden tissue the normalised loss {went}; lower is better, predicting the mean gives 1."]
    if inpainting is not None:
        against = f"gets {number(inpainting)}: the network is {_against(after, inpainting)}."
        sentences.append(f"Trilinear inpainting from the same visible voxels {against}")
    if own_mean is not None:
        against = f"{number(own_mean)}: the network is {_against(after, own_mean)}."
        sentences.append(f"Granted the true mean of every hidden cell, inpainting gets {against}")
    harmonic = finite(record.last, "harmonic_own_mean")
    if harmonic is not None:
        against = f"{number(harmonic)}: the network is {_against(after, harmonic)}."
        sentences.append(f"The smoothest interpolation (harmonic), granted the same, gets {against}")
    sentences = [sentences[0], " ".join(sentences[1:])] if len(sentences) > 1 else sentences
    if before is None or not moved(record):
        return Verdict("unknown", "Not known yet: measured once only.", tuple(sentences), warnings)
    return Verdict(
        *_answer(before, after, inpainting, harmonic or own_mean, _collapsed(record)), tuple(sentences), warnings
    )


def moved(record: RunRecord) -> bool:
    """Return True if there is a held-out measurement from before training and a later one."""
    start = finite(record.first, "normalised_loss")
    return start is not None and finite(record.last, "step") != finite(record.first, "step")


def _answer(
    before: float, after: float, inpainting: float | None, own_mean: float | None, collapsed: bool
) -> tuple[str, str]:
    if after >= min(before, 1.0):
        return "no", "No, not yet."
    if after >= LEARNED:
        return "partly", "Only a little: not far from predicting the mean."
    if collapsed:
        return "partly", "It fills in tissue, but its features may have collapsed."
    if inpainting is None:
        return "partly", "Better than predicting the mean; inpainting was not measured."
    if after >= inpainting:
        return "partly", "Partly: better than the mean, not yet better than inpainting."
    if own_mean is not None and after >= own_mean:
        return "yes", "Yes, it learned, though a harder baseline is still ahead."
    return "yes", "Yes, it learned."


def _against(after: float, other: float) -> str:
    if other <= 0 or after == other:
        return "at the same value" if after == other else "above it"
    return f"{number(100 * abs(1 - after / other), 2)} % {'below' if after < other else 'above'} it"


def _collapsed(record: RunRecord) -> bool:
    rank, start = finite(record.last, "effective_rank"), finite(record.first, "effective_rank")
    return rank is not None and start is not None and rank < RANK_LEFT * start


def _warnings(record: RunRecord) -> tuple[str, ...]:
    warnings = []
    if not record.finished:
        warnings.append(
            f"The run has not finished: it goes on or was stopped. This is how it stands at step {record.step:,}."
        )
    if _collapsed(record):
        rank, start = number(finite(record.last, "effective_rank")), number(finite(record.first, "effective_rank"))
        warnings.append(
            f"The effective rank of the features fell from {start} to {rank}, under a quarter: a sign of collapse."
        )
    lost = int(np.count_nonzero(~np.isfinite(record.metrics["normalised_loss"])))
    if lost:
        warnings.append(f"{count(lost, 'step')} recorded no finite normalised loss.")
    losses = [(loss, int(v["step"])) for v in record.validations if (loss := finite(v, "normalised_loss")) is not None]
    last = finite(record.last, "normalised_loss")
    if losses and last is not None and last > 1.05 * min(losses)[0]:
        best, step = min(losses)
        since = "has risen since: a sign of overfitting"
        warnings.append(f"The held-out loss was lowest at step {step:,} ({number(best)}) and {since}.")
    return tuple(warnings)


def headline(record: RunRecord) -> dict[str, Any]:
    """The numbers of the first screen as a JSON document; what is not known is `None`."""
    verdict = judge(record)
    return {
        "learned": verdict.learned,
        "verdict": " ".join((verdict.title, *verdict.sentences)),
        "warnings": list(verdict.warnings),
        "finished": record.finished,
        "step": record.step,
        "normalised_loss": {
            "first": finite(record.first, "normalised_loss"),
            "last": finite(record.last, "normalised_loss"),
        },
        "inpainting": finite(record.last, "inpainting"),
        "inpainting_own_mean": finite(record.last, "inpainting_own_mean"),
        "volumes": {
            "used": finite(record.data, "used"),
            "refused": len(sequence(record.data, "refused")) if record.data else None,
        },
        "seconds_per_step": record.seconds_per_step,
        "missing": record.missing,
    }
