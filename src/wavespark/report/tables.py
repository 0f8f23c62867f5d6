"""The tables of the page: refusals, data, settings, environment, measurements."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from wavespark.pages.markup import Html, foldable, join, table, tag
from wavespark.pages.numbers import count, number
from wavespark.report.record import RunRecord
from wavespark.report.values import finite, mapping, sequence

_FEW = 8
"""Refusals that are listed without being counted by reason first."""
_MOST_ROWS = 300
_MOST_IDS = 300
_ABSOLUTE_PATH = re.compile(r"^(/|~|\\\\|[A-Za-z]:[\\/]|file:)")


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings as dotted names and values.

    >>> list(flat({"model": {"name": "tiny"}, "seed": 1}))
    [('model.name', 'tiny'), ('seed', 1)]
    """
    for key, value in document.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def shown(value: Any) -> str:
    """A setting as text; a path on this machine is not repeated, because reports are passed on and
    paths name people.

    >>> shown([0.9, 0.95]), shown(True), shown("/home/jane/store")
    ('0.9, 0.95', 'yes', '(a path on the machine of the run)')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return "none"
    if isinstance(value, list | tuple):
        return ", ".join(shown(v) for v in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {shown(v)}" for k, v in value.items()) or "none"
    if isinstance(value, str) and _ABSOLUTE_PATH.match(value):
        return "(a path on the machine of the run)"
    return f"{value:,}" if isinstance(value, int) and abs(value) >= 10_000 else str(value)


def document_table(document: Mapping[str, Any], caption: str, heads: tuple[str, str] = ("Setting", "Value")) -> Html:
    """A nested document as a table of dotted names."""
    return table(heads, ((name, shown(value)) for name, value in flat(document)), caption=caption)


def refusals(data: Mapping[str, Any]) -> Html:
    """Every refused input with its reason, grouped where there are many."""
    rows = [r for r in sequence(data, "refused") if isinstance(r, dict)]
    if not rows:
        return tag("p", "No input was refused." if data else "Not known: data.json is missing.")
    were = "was" if len(rows) == 1 else "were"
    parts = [tag("p", f"{count(len(rows), 'input')} could not be used and {were} left out; everything else was used.")]
    listed = [
        (str(r.get("source_id", "")), tag("code", r.get("reason", "unknown")), r.get("sentence", ""))
        for r in rows[:_MOST_ROWS]
    ]
    each = table(("Input", "Reason", "In words"), listed, caption="Refused inputs")
    if len(rows) <= _FEW:
        return join(*parts, each)
    reasons = Counter(str(r.get("reason", "unknown")) for r in rows).most_common()
    counted = ((reason, f"{n:,}") for reason, n in reasons[:_MOST_ROWS])
    parts.append(table(("Reason", "Inputs"), counted, caption="Refusals by reason", numeric=True))
    title = "One by one" if len(rows) <= _MOST_ROWS else f"One by one, the first {_MOST_ROWS:,}"
    return join(*parts, foldable(title, each))


def data_tables(data: Mapping[str, Any]) -> Html:
    """Return the tables of training and held-out data."""
    if not data:
        return tag("p", "Not known: data.json is missing.")
    held_out = mapping(data, "held_out")
    rows: list[tuple[object, object]] = [
        ("Volumes found in the store", count(finite(data, "volumes"))),
        ("Volumes used", count(finite(data, "used"))),
    ]
    rows.append(("Inputs refused", count(len(sequence(data, "refused")))))
    for key, head in (("by_modality", "By modality"), ("by_contrast", "By contrast")):
        if groups := mapping(data, key):
            rows.append((head, ", ".join(f"{name}: {count(finite(groups, name))}" for name in groups)))
    if held_out:
        rows.append(("Held out for measuring", held_out.get("description") or held_out.get("kind") or "not described"))
    if data.get("store_fingerprint"):
        rows.append(("Fingerprint of the store", tag("code", data["store_fingerprint"])))
    parts = [table(("What", "Value"), rows, caption="What went in")]
    for ids, name in (
        (sequence(data, "training"), "trained on"),
        (sequence(held_out, "volumes"), "held out, whole or in part"),
    ):
        if ids:
            more = f" and {len(ids) - _MOST_IDS:,} more" if len(ids) > _MOST_IDS else ""
            codes = tag("ul", *(tag("li", tag("code", i)) for i in ids[:_MOST_IDS]), class_="ids")
            parts.append(foldable(f"{count(len(ids), 'volume')} {name}", codes, tag("p", more) if more else None))
    if recipe := mapping(data, "recipe"):
        parts.append(foldable("How the volumes were prepared", document_table(recipe, "Preparation recipe")))
    return join(*parts)


def validations(record: RunRecord) -> Html | None:
    """Every held-out measurement as numbers."""
    keys = (
        "normalised_loss",
        "inpainting",
        "inpainting_own_mean",
        "harmonic_own_mean",
        "effective_rank",
        "feature_std",
    )
    heads = (
        "Step",
        "Normalised loss",
        "Inpainting",
        "Inpainting, own mean",
        "Effective rank",
        "Feature std",
        "Target cells",
    )
    rows = [
        (f"{int(v['step']):,}", *(number(finite(v, k)) for k in keys), count(finite(v, "target_cells")))
        for v in record.validations[-_MOST_ROWS:]
    ]
    return (
        foldable(
            "The held-out measurements as numbers", table(heads, rows, caption="Held-out measurements", numeric=True)
        )
        if rows
        else None
    )


def by_modality(record: RunRecord) -> Html | None:
    """The newest held-out measurement of each modality, where there are several."""
    groups = mapping(record.last, "per_modality")
    rows = []
    for name in groups:
        now, start = mapping(groups, name), mapping(mapping(record.first, "per_modality"), name)
        rows.append(
            (
                name,
                number(finite(start, "normalised_loss")),
                number(finite(now, "normalised_loss")),
                number(finite(now, "inpainting")),
            )
        )
    heads = ("Modality", "Before", "Now", "Trilinear inpainting")
    return table(heads, rows, caption="Held-out normalised loss by modality", numeric=True) if len(rows) > 1 else None
