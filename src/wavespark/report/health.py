"""The health of a run as tables: every level's features, and what frozen features know of a
label."""

from collections.abc import Mapping
from typing import Any

from wavespark.pages.markup import Html, join, table, tag
from wavespark.pages.numbers import count, number
from wavespark.report.record import RunRecord
from wavespark.report.values import finite, mapping, sequence

_PROBES = {"knn": "Nearest neighbours", "linear": "Linear"}
_SOLVED = 0.99
"""Balanced accuracy from which a probe has nothing left to show."""
_NOISE = 0.02
"""Smallest fall of balanced accuracy that is explained."""


def levels(record: RunRecord) -> Html | None:
    """Spread, effective rank and alignment of each level, before training and now."""
    start = {finite(level, "stride"): level for level in _levels(record.first)}
    rows = []
    for now in _levels(record.last):
        before = start.get(finite(now, "stride"), {})
        figures = [
            number(finite(row, key)) for key in ("feature_std", "effective_rank", "alignment") for row in (before, now)
        ]
        rows.append((count(finite(now, "stride")), *figures))
    heads = ("Stride", "Std before", "now", "Effective rank before", "now", "Alignment before", "now")
    return table(heads, rows, caption="Features of each level, held out", numeric=True) if rows else None


def probes(record: RunRecord) -> Html | None:
    """Balanced accuracy of the probes, before training and now."""
    now, before = mapping(record.last, "probe"), mapping(record.first, "probe")
    rows = []
    for key, name in _PROBES.items():
        if found := mapping(now, key):
            interval = f"{number(finite(found, 'low'))} to {number(finite(found, 'high'))}"
            rows.append((name, number(finite(mapping(before, key), "value")), number(finite(found, "value")), interval))
    if not rows:
        return None
    chance, label = number(finite(now, "chance")), str(now.get("label", "a label"))
    caption = f"Balanced accuracy of telling the {label} from frozen features, by patient; chance is {chance}"
    shown = table(("Probe", "Before", "Now", "95 % interval"), rows, caption=caption, numeric=True)
    return join(shown, *(tag("p", sentence) for sentence in _explain(before, now, label)))


def _explain(before: Mapping[str, Any], now: Mapping[str, Any], label: str) -> list[str]:
    """Say what a probe means that random weights solved, or that fell during training."""
    pairs = [(finite(mapping(before, key), "value"), mapping(now, key)) for key in _PROBES]
    known = [(start, end, finite(row, "high")) for start, row in pairs if (end := finite(row, "value")) is not None]
    starts = [start for start, _, _ in known if start is not None]
    sentences = []
    if starts and max(starts) >= _SOLVED:
        sentences.append(
            f"Random weights already told the {label} (balanced accuracy {number(max(starts))}): brightness is enough "
            "for that. This probe cannot show a gain here; it only warns of a collapse."
        )
    fallen = [(start, end, high) for start, end, high in known if start is not None and end < start - _NOISE]
    if fallen:
        start, end, high = min(fallen, key=lambda row: row[1] - row[0])
        certain = high is not None and high < start
        sentences.append(
            f"It fell from {number(start)} to {number(end)}, which is "
            + ("more than" if certain else "within")
            + " the noise of so few volumes. Pre-training describes structure within cells and may drop overall "
            "brightness, so a fall alone is no fault as long as the held-out loss falls and the effective rank stays "
            "above a quarter of its start. If your task needs this label, test it with `wavespark probe` on more "
            "volumes, or fine-tune instead of freezing the encoder."
        )
    return sentences


def _levels(measure: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [level for level in sequence(measure, "levels") if isinstance(level, dict)]
