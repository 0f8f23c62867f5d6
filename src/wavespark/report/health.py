"""The health of a run as tables: every level's features, and what frozen features know of a label."""

from collections.abc import Mapping
from typing import Any

from wavespark.pages.markup import Html, table
from wavespark.pages.numbers import count, number
from wavespark.report.record import RunRecord
from wavespark.report.values import finite, mapping, sequence

_PROBES = {"knn": "Nearest neighbours", "linear": "Linear"}


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
    return table(("Probe", "Before", "Now", "95 % interval"), rows, caption=caption, numeric=True)


def _levels(measure: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [level for level in sequence(measure, "levels") if isinstance(level, dict)]
