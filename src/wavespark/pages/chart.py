"""Line charts as inline SVG: the drawing stretches with the page, its labels keep the size of the
page's text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from wavespark.pages.markup import Html, join, tag
from wavespark.pages.numbers import count, number

Series = npt.NDArray[np.float64]
_BINS = 400
"""Points of a long series that are drawn; each stands for the lowest and highest value of its
bin."""
_HUGE = 1e100
_SIDE = 1000
"""Side of the drawing in its own units; the page stretches it."""
_NUDGE = 10
"""Drawing units between the intervals of two curves at one place, so that neither hides the
other."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """One line of a chart."""

    label: str
    x: Series
    y: Series
    look: str
    """Class of page.css: `training`, `smooth`, `validation`, `inpainting`, `second` or `third`."""
    dots: bool = False
    guide: bool = False
    """A baseline: it widens the vertical range at most to twice the highest of the other curves."""
    low: Series | None = None
    """Lower ends of the intervals, as long as `y`; NaN where there is none."""
    high: Series | None = None


@dataclass(frozen=True, kw_only=True)
class Level:
    """A horizontal line that a chart is read against."""

    value: float
    label: str


def chart(
    title: str,
    curves: Sequence[Curve],
    *,
    levels: Sequence[Level] = (),
    floor: float | None = None,
    ceiling: float | None = None,
    note: str = "",
    tall: bool = False,
    x_title: str = "step",
    logarithmic: bool = False,
) -> Html | None:
    """Build a figure with heading, legend, chart and note.

    Values far above the rest are drawn at the upper edge, and the note says so.

    Args:
        title: heading of the figure.
        curves: lines to draw; those without a finite value are left out.
        levels: horizontal lines to read the curves against.
        floor: value that the vertical range includes at its lower end.
        ceiling: value that the vertical range includes at its upper end.
        note: sentence below the chart.
        tall: use the height of a main figure.
        x_title: what the horizontal axis counts, in the singular.
        logarithmic: draw the horizontal axis logarithmically, with a tick at every place of a
            curve.

    Returns:
        The figure, or `None` if no curve has a finite value.
    """
    curves = [c for c in (replace(c, y=_drawable(c.y)) for c in curves) if np.isfinite(c.y).any()]
    if not curves:
        return None
    names = [f"{v:,.0f}" for v in np.unique(np.concatenate([c.x for c in curves]))] if logarithmic else []
    places = [math.log(float(n.replace(",", ""))) for n in names]
    labels = [_described(c, x_title) for c in curves]
    if logarithmic:
        curves = [replace(c, x=np.log(c.x)) for c in curves]
    values = np.concatenate([c.y[np.isfinite(c.y)] for c in curves])
    bulk = _ranged(curves, [level.value for level in levels])
    low = float(bulk.min()) if floor is None else min(float(bulk.min()), floor)
    high = float(bulk.max()) if ceiling is None else max(float(bulk.max()), ceiling)
    if high - low < 1e-9 * max(abs(high), 1e-30):
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    pad = 0.05 * (high - low)
    low, high = low if low == floor else low - pad, high + pad
    left, right = _across(curves, places)
    above = int(np.count_nonzero(values > high))
    at = _Frame(left, right, low, high)
    ticks = _ticks(low, high, 5)
    lines = [tag("path", d=f"M0,{at.y(t)}H{_SIDE}", class_="grid") for t in ticks]
    lines += [tag("path", d=f"M0,{at.y(v.value)}H{_SIDE}", class_="level") for v in levels]
    nudges = _NUDGE * (np.arange(len(curves)) - (len(curves) - 1) / 2)
    lines += [part for c, nudge in zip(curves, nudges, strict=True) for part in _drawn(c, at, round(nudge))]
    whole = _ticks(left, right, 5, whole=True) if not logarithmic else []
    marks = list(zip(places, names, strict=True)) or [(t, f"{t:,.0f}") for t in whole]
    plot = tag(
        "div",
        tag(
            "svg",
            *lines,
            viewBox=f"0 0 {_SIDE} {_SIDE}",
            preserveAspectRatio="none",
            aria_hidden="true",
            focusable="false",
        ),
        *(tag("span", number_on_axis(t, high), class_="tick y", style=f"top:{at.y(t) / 10:.1f}%") for t in ticks),
        *(tag("span", name, class_="tick x", style=f"left:{at.x(place) / 10:.1f}%") for place, name in marks),
        tag("span", x_title, class_="tick axis"),
        *(tag("span", v.label, class_="on-level", style=f"top:{at.y(v.value) / 10:.1f}%") for v in levels),
        class_="plot tall" if tall else "plot",
        role="img",
        aria_label=f"{title}. " + " ".join(labels),
    )
    legend = tag(
        "ul",
        *(tag("li", tag("span", class_=f"swatch {c.look}", aria_hidden="true"), c.label) for c in curves),
        class_="legend",
    )
    words = (f"{count(above, 'value')} above {number(high)} drawn at the upper edge. " if above else "") + note
    caption = tag("figcaption", tag("h3", title), legend if len(curves) > 1 else None)
    return tag("figure", caption, plot, tag("p", words, class_="note") if words else None, class_="chart")


def _across(curves: Sequence[Curve], places: Sequence[float]) -> tuple[float, float]:
    """The horizontal range: from 0, or of a logarithmic axis from its first place less a margin."""
    if places:
        margin = 0.08 * (places[-1] - places[0]) or 1.0
        return places[0] - margin, places[-1] + margin
    right = float(max(c.x.max() for c in curves))
    return 0.0, right if right > 0 else 1.0


def smoothed(y: Series) -> tuple[Series, int]:
    """Return the moving mean over the `n` nearest steps, and that `n`: a twentieth of the series,
    odd."""
    n = max(1, len(y) // 20) | 1
    if not len(y):
        return y, n
    known = np.isfinite(y)
    ones = np.convolve(known.astype(np.float64), np.ones(n), mode="same")[: len(y)]
    sums = np.convolve(np.where(known, y, 0.0), np.ones(n), mode="same")[: len(y)]
    return np.divide(sums, ones, out=np.full(len(y), np.nan), where=ones > 0), n


def number_on_axis(value: float, highest: float) -> str:
    """Format a tick's number, short, in the notation that suits the highest value of its axis.

    >>> number_on_axis(0.30000000000000004, 1.0), number_on_axis(0.0001, 0.001), number_on_axis(12000.0, 12000.0)
    ('0.3', '1e-4', '12,000')
    """
    if value != 0 and (abs(highest) < 0.01 or abs(highest) >= 1e7):
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:,.4f}".rstrip("0").rstrip(".")


@dataclass(frozen=True)
class _Frame:
    left: float
    right: float
    low: float
    high: float

    def x(self, value: float) -> int:
        return round(_SIDE * (value - self.left) / (self.right - self.left))

    def y(self, value: float) -> int:
        return round(_SIDE * (self.high - max(self.low, min(self.high, value))) / (self.high - self.low))


def _drawable(y: Series) -> Series:
    """The values, with a gap where arithmetic on one would overflow, and 0 where it would
    underflow."""
    size = np.abs(y)
    return np.where(size > _HUGE, np.nan, np.where(size < 1 / _HUGE, 0.0, y))


def _bulk(curve: Curve) -> Series:
    """The values that set the vertical range: all of them, but of a long series not its highest two
    per cent."""
    ends = [end for end in (curve.low, curve.high) if end is not None]
    values = np.concatenate([curve.y, *ends])
    values = values[np.isfinite(values)]
    return values if len(values) < 50 else values[values <= np.percentile(values, 98)]


def _ranged(curves: Sequence[Curve], levels: Sequence[float]) -> Series:
    """The values that the vertical range holds; a baseline far above all else would press the
    curves flat."""
    own = np.concatenate([_bulk(c) for c in curves if not c.guide] + [np.array(levels)])
    guides = np.concatenate([_bulk(c) for c in curves if c.guide] or [np.array([])])
    return np.concatenate([own, guides[guides <= 2 * own.max()]]) if own.size else guides


def _ticks(low: float, high: float, about: int, whole: bool = False) -> list[float]:
    """Round numbers inside [low, high]: multiples of 1, 2 or 5 times a power of ten."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    return [k * step for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _drawn(curve: Curve, at: _Frame, nudge: int) -> list[Html]:
    bars = _intervals(curve, at, nudge)
    nudge = nudge if bars else 0
    x, y = _thinned(curve.x, curve.y)
    words, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if math.isfinite(b):
            words.append(f"{pen}{at.x(a) + nudge},{at.y(b)}")
            pen = "L"
        else:
            pen = "M"
    drawn = [tag("path", d="".join(words), class_=f"curve {curve.look}")]
    if curve.dots or len(words) == 1:
        dots = "".join(f"M{at.x(a) + nudge},{at.y(b)}h.01" for a, b in zip(x, y, strict=True) if math.isfinite(b))
        drawn.append(tag("path", d=dots, class_=f"dots {curve.look}"))
    return drawn + bars


def _intervals(curve: Curve, at: _Frame, nudge: int) -> list[Html]:
    """One upright line from the lower to the upper end of every interval."""
    if curve.low is None or curve.high is None:
        return []
    ends = zip(curve.x, curve.low, curve.high, strict=True)
    bars = "".join(f"M{at.x(a) + nudge},{at.y(low)}V{at.y(high)}" for a, low, high in ends if math.isfinite(low + high))
    return [tag("path", d=bars, class_=f"interval {curve.look}")] if bars else []


def _thinned(x: Series, y: Series) -> tuple[Series, Series]:
    """At most two points a bin, its lowest and highest in their order, so that no spike is lost."""
    if len(x) <= 2 * _BINS:
        return x, y
    kept: list[int] = []
    for part in np.array_split(np.arange(len(x)), _BINS):
        known = part[np.isfinite(y[part])]
        ends = {int(known[np.argmin(y[known])]), int(known[np.argmax(y[known])])} if len(known) else {int(part[0])}
        kept += sorted(ends)
    return x[kept], y[kept]


def _described(curve: Curve, x_title: str) -> str:
    known = np.flatnonzero(np.isfinite(curve.y))
    ends = (f"{number(float(curve.y[k]))} at {x_title} {curve.x[k]:,.0f}" for k in (known[0], known[-1]))
    return f"{curve.label}: {', '.join(ends)}."


def side_by_side(*charts: Html | None) -> Html:
    """Place the charts side by side where there is room; `None` is skipped."""
    return tag("div", join(*charts), class_="charts")
