"""Figures with intervals as lines of text that fit a terminal."""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from wavespark.downstream.naming import figure_label
from wavespark.text import printable

_PIPE_WIDTH = 100
"""Columns of output that is no terminal."""


def figure(values: Mapping[str, Any] | None) -> str:
    """Write a figure with its interval, or with the reason why there is none.

    >>> figure({"value": 0.8123, "low": 0.79, "high": 0.83, "patients": 9})
    '0.812 [0.790, 0.830]'
    >>> figure({"value": 0.75, "low": 0.75, "high": 0.75, "patients": 6})
    '0.750 (no spread, n=6)'
    >>> figure({"value": 0.75, "low": None, "high": None, "patients": 1})
    '0.750 (no interval, n=1)'
    """
    if values is None or values["value"] is None:
        return "-"
    patients = values.get("patients")
    count = "" if patients is None else f", n={patients}"
    if values["low"] is None:
        return f"{values['value']:.3f} (no interval{count})"
    if values["low"] == values["high"]:
        return f"{values['value']:.3f} (no spread{count})"
    return f"{values['value']:.3f} [{values['low']:.3f}, {values['high']:.3f}]"


def explanations(lines: Sequence[str]) -> list[str]:
    """Return a sentence for each kind of missing interval that occurs in the lines."""
    text = "\n".join(lines)
    sentences = {
        "(no interval": "no interval: it takes two test patients, and a figure that most draws of them can give",
        "(no spread": "no spread: every draw of these n test patients gives the same figure, so its uncertainty is not known",
    }
    return [sentence for mark, sentence in sentences.items() if mark in text]


def width() -> int:
    """Return the columns of the terminal that standard output goes to; 100 elsewhere."""
    try:
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(sys.stdout.fileno()).columns)
    except (OSError, ValueError, AttributeError):
        return _PIPE_WIDTH


def figure_lines(
    rows: Sequence[Mapping[str, Any]], figures: Sequence[str], names: Mapping[str, str], columns: int
) -> list[str]:
    """Lay out a table of arms and figures so that no line is longer than the terminal.

    Args:
        rows: `arm`, `labels`, `figures[name]`.
        figures: names of the figures to show.
        names: of figures for people.
        columns: of the terminal.

    Returns:
        A line for each row with a column for each figure; if that is too wide, a block of lines for
        each figure.
    """
    cells = [[figure(row["figures"].get(name)) for name in figures] for row in rows]
    heads = [printable(figure_label(name, names)) for name in figures]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    first = max(len("arm"), *(len(row["arm"]) for row in rows))
    starts = [f"  {row['arm']:<{first}} {row['labels']:>6}" for row in rows]
    if len(starts[0]) + sum(w + 2 for w in widths) <= columns:
        lines = [f"  {'arm':<{first}} {'labels':>6}  " + "  ".join(map(str.ljust, heads, widths))]
        lines += [f"{s}  " + "  ".join(map(str.ljust, row, widths)) for s, row in zip(starts, cells, strict=True)]
        return [line.rstrip() for line in lines]
    lines = []
    for number, head in enumerate(heads):
        lines += [f"{head}:"] + [f"{s}  {row[number]}" for s, row in zip(starts, cells, strict=True)]
    return lines
