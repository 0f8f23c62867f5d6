"""RUN/report.html of a comparison: the curve over the number of labels, the table, what was held equal. Self-contained, no script."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

COLOURS = {"pre-trained": "#0b62a4", "scratch": "#b3541e"}
"""Dark enough for text; told apart by shape as well."""

_STYLE = """body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}table{border-collapse:collapse}
td,th{border-bottom:1px solid #ccc;padding:.3em .8em;text-align:right}td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}
.note{color:#555}@media print{body{margin:0}}"""
_W, _H, _LEFT, _BOTTOM, _TOP, _RIGHT = 640, 360, 64, 48, 20, 150


def study_page(results: Mapping[str, Any]) -> str:
    """The page of `run_study`'s results."""
    kind, main = results["task"]["kind"], results["main"]
    names = list(dict.fromkeys(n for r in results["table"] for n in r["figures"]))
    names = [main, *(n for n in names if n != main)][:12]
    curve = curve_svg(results["table"], main) if len({r["labels"] for r in results["table"]}) > 1 else ""
    return f"""<!doctype html><html lang="en"><head><meta charset="utf-8"><title>wavespark: {html.escape(kind)}</title><style>{_STYLE}</style></head><body>
<h1>Fine-tuning: {html.escape(kind)}</h1>
<p>{html.escape(verdict(results))}</p>
{curve}
<h2>Figures</h2>
{_table(results["table"], names)}
{_gains(results, names)}
<p class="note">{html.escape(conditions(results))}</p>
</body></html>
"""


def verdict(results: Mapping[str, Any]) -> str:
    """One sentence for each number of labels: did pre-training pay, on this test set?"""
    if not results["gains"]:
        return "No scratch control was trained, so nothing is said about what pre-training gave."
    parts = []
    for row in results["gains"]:
        found = row["figures"].get(results["main"])
        if found is None or found["value"] is None:
            parts.append(f"{row['labels']} label(s): not computable")
            continue
        if found["low"] is None:
            said = "no interval, too few test patients"
        elif found["low"] > 0:
            said = "better than scratch"
        elif found["high"] < 0:
            said = "worse than scratch"
        else:
            said = "no difference shown"
        spread = "" if found["low"] is None else f" [{found['low']:+.3f}, {found['high']:+.3f}]"
        parts.append(f"{row['labels']} label(s): {found['value']:+.3f}{spread}, {said}")
    return f"Pre-trained minus scratch, {results['main']}: " + "; ".join(parts) + "."


def conditions(results: Mapping[str, Any]) -> str:
    """What was held equal, and what the figures do not show."""
    head = "frozen encoder" if results["frozen"] else "the whole network trained"
    return (
        f"{results['steps']} steps in every arm, same windows, same head ({results['decoder']} decoder, {head}), {results['seeds']} seed(s); "
        f"{results['test_volumes']} test volume(s) of {results['test_patients']} patient(s). Intervals are 95 % over test patients (bootstrap); they do not "
        "cover other data sets. Pre-training may have seen the images, never the labels, of test volumes if they were in its store."
    )


def _table(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    head = "".join(f"<th>{html.escape(n)}</th>" for n in ("arm", "labels", *names))
    body = "".join(
        f"<tr><td>{html.escape(r['arm'])}</td><td>{r['labels']}</td>"
        + "".join(f"<td>{_figure(r['figures'].get(n))}</td>" for n in names)
        + "</tr>"
        for r in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _gains(results: Mapping[str, Any], names: Sequence[str]) -> str:
    if not results["gains"]:
        return ""
    rows = [{"arm": "difference", **row} for row in results["gains"]]
    return f"<h2>Pre-trained minus scratch, on the same patients</h2>{_table(rows, names)}"


def _figure(found: Mapping[str, Any] | None) -> str:
    if found is None or found["value"] is None:
        return "&ndash;"
    spread = "" if found["low"] is None else f"<br><small>{found['low']:.3f} &hellip; {found['high']:.3f}</small>"
    return f"{found['value']:.3f}{spread}"


def curve_svg(rows: Sequence[Mapping[str, Any]], name: str, arms: Mapping[str, str] = COLOURS) -> str:
    """The figure over the number of labels (logarithmic), a line an arm, with intervals as bars.

    Args:
        rows: `arm`, `labels`, `figures[name]` with `value`, `low`, `high`.
        name: which figure.
        arms: colour of each arm.
    """
    points = [
        (r["arm"], r["labels"], r["figures"][name]) for r in rows if r["figures"].get(name, {}).get("value") is not None
    ]
    if not points:
        return ""
    xs = sorted({n for _, n, _ in points})
    ys = [y for _, _, f in points for y in (f["value"], f["low"], f["high"]) if y is not None]
    low, high = min(ys), max(ys)
    margin = 0.08 * (high - low) or 0.05
    low, high = low - margin, high + margin

    def x(n: float) -> float:
        span = math.log(xs[-1] / xs[0]) or 1.0
        return _LEFT + (_W - _LEFT - _RIGHT) * math.log(n / xs[0]) / span

    def y(value: float) -> float:
        return _TOP + (_H - _TOP - _BOTTOM) * (high - value) / (high - low)

    parts = [
        f'<svg viewBox="0 0 {_W} {_H}" role="img" aria-label="{html.escape(name)} over the number of labelled volumes">'
    ]
    for k in range(5):
        value = low + (high - low) * k / 4
        parts.append(f'<line x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#ddd"/>')
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end" font-size="12">{value:.2f}</text>'
        )
    parts += [
        f'<text x="{x(n):.1f}" y="{_H - _BOTTOM + 20}" text-anchor="middle" font-size="12">{n}</text>' for n in xs
    ]
    parts.append(
        f'<text x="{(_LEFT + _W - _RIGHT) / 2}" y="{_H - 8}" text-anchor="middle" font-size="13">labelled volumes</text>'
    )
    for place, (arm, colour) in enumerate(arms.items()):
        mine = sorted((n, f) for a, n, f in points if a == arm)
        if not mine:
            continue
        nudge = 3 * (place - (len(arms) - 1) / 2)
        line = " ".join(f"{x(n) + nudge:.1f},{y(f['value']):.1f}" for n, f in mine)
        dash = ' stroke-dasharray="6 4"' if place else ""
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        for n, f in mine:
            at = x(n) + nudge
            if f["low"] is not None:
                parts.append(
                    f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{y(f["low"]):.1f}" y2="{y(f["high"]):.1f}" stroke="{colour}"/>'
                )
            parts.append(_mark(at, y(f["value"]), colour, place))
        end = mine[-1][1]["value"]
        parts.append(
            f'<text x="{_W - _RIGHT + 12}" y="{y(end) + 4 + 14 * (place % 2):.1f}" font-size="13" fill="{colour}">{html.escape(arm)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _mark(x: float, y: float, colour: str, place: int) -> str:
    if place % 2:
        return f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="{colour}"/>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{colour}"/>'
