"""Reconstructions as pictures: tables of planes for the page, and one PNG for a README."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from wavespark.errors import DependencyError, InputError
from wavespark.pages.markup import Html, join, tag
from wavespark.pages.numbers import number
from wavespark.pages.planes import PLANES, Plane
from wavespark.pages.png import Bytes, data_uri, grey, grey_palette, heat, heat_palette, png, thinned
from wavespark.report.examples import Case, Examples, Voxels, read_cases
from wavespark.report.planes import position, window
from wavespark.report.values import channel_name
from wavespark.report.viewer import viewer

_PICTURE_BYTES = 2_800_000
"""Largest size of the pictures and volumes of a page; the first case is always shown."""
_MOST_CHANNELS = 4


@dataclass(frozen=True, eq=False)
class Panel:
    """A column of a case: what it shows, and how to paint one of its slices."""

    title: str
    alt: str
    paint: Callable[[Plane, int], Bytes]
    palette: Bytes


def panels(
    case: Case, step: int | None = None, before: Case | None = None, before_step: int | None = None, channel: int = 0
) -> tuple[list[Panel], float]:
    """The columns of a case, one channel of it, and the error that the brightest error colour
    stands for."""
    limits, greys, heats = window(case, channel), grey_palette(), heat_palette()
    predictions = [p for p in (case.reconstruction, case.inpainting) if p is not None]
    # One scale of errors for all channels: they share the units of the prepared volume.
    most = max(_most(np.abs(p - case.original)[:, case.scored]) for p in predictions)

    def shades(voxels: Voxels) -> Callable[[Plane, int], Bytes]:
        return lambda plane, at: grey(plane.cut(voxels[channel], at), limits)

    def visible(plane: Plane, at: int) -> Bytes:
        return grey(plane.cut(case.original[channel], at), limits, hidden=~plane.cut(case.visible, at))

    def errors(voxels: Voxels) -> Callable[[Plane, int], Bytes]:
        difference = np.where(case.scored, np.abs(voxels[channel] - case.original[channel]), 0)
        return lambda plane, at: heat(plane.cut(difference, at), most)

    columns = [
        Panel("Original", "the original", shades(case.original), greys),
        Panel("Visible to the encoder", "what the encoder saw", visible, greys),
    ]
    if before is not None:
        when = f"At step {before_step:,}" if before_step else "Before training"
        columns.append(Panel(when, "an earlier reconstruction", shades(before.reconstruction), greys))
    now = "Reconstruction" if step is None else f"Reconstruction, step {step:,}"
    columns.append(Panel(now, "the reconstruction", shades(case.reconstruction), greys))
    if case.inpainting is not None:
        columns.append(Panel("Trilinear inpainting", "trilinear inpainting", shades(case.inpainting), greys))
    columns.append(
        Panel(
            "Error of the reconstruction",
            "the absolute error of the reconstruction",
            errors(case.reconstruction),
            heats,
        )
    )
    if case.inpainting is not None:
        columns.append(Panel("Error of inpainting", "the absolute error of inpainting", errors(case.inpainting), heats))
    return columns, most


def _most(values: npt.NDArray) -> float:
    values = values[np.isfinite(values)]
    return float(np.percentile(values, 99.5)) or 1.0 if values.size else 1.0


def case_tables(examples: Examples) -> list[Html]:
    """Return a table of pictures and a 3-D view for each case, as many as the page may weigh."""
    shown: list[Html] = []
    weight = 0
    for k, case in enumerate(examples.cases):
        figure = join(_case_table(k + 1, case, examples), viewer(case, k + 1))
        weight += len(figure)
        if shown and weight > _PICTURE_BYTES:
            break
        shown.append(figure)
    return shown


def glance(examples: Examples) -> Html:
    """The first case at a glance: what was seen, what was made of it, and the truth."""
    case = examples.cases[0]
    plane = PLANES[0]
    at = position(case, plane)
    by_title = {p.title: p for p in panels(case)[0]}
    shown = (
        ("Visible to the encoder", "what it sees"),
        ("Reconstruction", "what it fills in"),
        ("Original", "the truth"),
    )
    items = [
        tag("li", _image(by_title[title], plane, at, case, "At a glance"), tag("span", words)) for title, words in shown
    ]
    return tag("div", tag("ul", *items), class_="glance")


def _image(panel: Panel, plane: Plane, at: int, case: Case, label: str) -> Html:
    shape = case.visible.shape
    alt = f"{label}, {plane.name} slice {at + 1} of {shape[plane.axis]}: {panel.alt}"
    address = data_uri(png(thinned(panel.paint(plane, at)), panel.palette))
    return tag(
        "div",
        tag("img", src=address, alt=alt, style=f"aspect-ratio:{plane.aspect(shape, case.spacing):.4f}"),
        class_="tile",
    )


def _case_table(label: int, case: Case, examples: Examples) -> Html:
    before = examples.before.get(case.index)
    columns, most = panels(case, examples.step, before, examples.before_step)
    rows = []
    shown = [(plane, 0, columns) for plane in PLANES]
    for channel in range(1, min(len(case.original), _MOST_CHANNELS)):  # the windows of a CT, in one plane each
        shown.append((PLANES[0], channel, panels(case, examples.step, before, examples.before_step, channel)[0]))
    many = len(case.original) > 1
    for plane, channel, columns in shown:
        at = position(case, plane)
        title = f"{plane.name}, {channel_name(case.modality, len(case.original), channel)}" if many else plane.name
        sides = (("left", plane.left), ("right", plane.right), ("top", plane.top))
        marks = [tag("span", letter, class_=f"mark {side}", aria_hidden="true") for side, letter in sides]
        name = channel_name(case.modality, len(case.original), channel)
        told = f"Case {label}, {name}" if channel else f"Case {label}"
        images = [_image(panel, plane, at, case, told) for panel in columns]
        cells = [
            tag("td", tag("div", image, *(marks if k == 0 else ()), class_="marked")) for k, image in enumerate(images)
        ]
        rows.append(tag("tr", tag("th", tag("span", title), scope="row"), *cells))
    head = tag("tr", tag("td"), *(tag("th", p.title, scope="col") for p in columns))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_="panels")
    scale = tag(
        "p", "Error: 0 ", tag("span", class_="ramp", aria_hidden="true"), f" {number(most, 2)} and more", class_="scale"
    )
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Pictures of case {label}")
    caption = tag(
        "figcaption",
        tag("h3", f"Case {label}: ", tag("span", case.volume, class_="id")),
        tag("p", _described(case, before)),
    )
    return tag("figure", caption, scroll, scale, class_="case")


def _described(case: Case, before: Case | None) -> str:
    c, d, h, w = case.original.shape
    mm = " × ".join(f"{s:g}" for s in case.spacing)
    kind = " ".join(word for word in (case.modality, case.contrast) if word)
    names = ", ".join(channel_name(case.modality, c, k) for k in range(c)) if c > 1 else ""
    size = f"{f'{kind}, ' if kind else ''}{d} × {h} × {w} voxels of {mm} mm{f'; {names}' if names else ''}"
    made = [
        ("before training", None if before is None else before.reconstruction),
        ("reconstruction", case.reconstruction),
        ("inpainting", case.inpainting),
    ]
    told = ", ".join(f"{name} {number(case.error(voxels))}" for name, voxels in made if voxels is not None)
    return f"{size}. Mean absolute error on hidden foreground: {told}."


def reconstruction_figure(example_path: Path, output_png: Path, case: int = 0) -> Path:
    """Writes one case of an example file as a picture: three planes, from the original to the
    error.

    Raises:
        DependencyError: if matplotlib is not installed.
        InputError: if the file is damaged or has no such case.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.patheffects import withStroke
    except ImportError:
        raise DependencyError("matplotlib", "report", "a picture of a reconstruction") from None
    cases, total, _ = read_cases(Path(example_path), case + 1)
    if not 0 <= case < len(cases):
        raise InputError("not_found", f"{Path(example_path).name}: has {total} case(s), so there is no case {case}")
    chosen = cases[case]
    columns, _ = panels(chosen)
    columns = [p for p in columns if p.title != "Error of inpainting"]
    height = 2.0 * len(PLANES) + 0.3
    figure = Figure(figsize=(2.0 * len(columns), height), facecolor="white")
    FigureCanvasAgg(figure)
    letters: dict[str, Any] = {"color": "white", "fontsize": 8, "weight": "bold", "ha": "center", "va": "center"}
    axes = figure.subplots(len(PLANES), len(columns), squeeze=False)
    for i, plane in enumerate(PLANES):
        at = position(chosen, plane)
        for j, panel in enumerate(columns):
            axis, pixels = axes[i][j], panel.palette[panel.paint(plane, at)]
            aspect = plane.aspect(chosen.visible.shape, chosen.spacing) * pixels.shape[0] / pixels.shape[1]
            axis.imshow(pixels, interpolation="nearest", aspect=1 / aspect)
            axis.set_axis_off()
            if i == 0:
                axis.set_title(panel.title, fontsize=9, color="#1d2127", pad=6)
            if j == 0:
                for x, y, letter in ((0.06, 0.5, plane.left), (0.94, 0.5, plane.right), (0.5, 0.94, plane.top)):
                    text = axis.text(x, y, letter, transform=axis.transAxes, **letters)
                    text.set_path_effects([withStroke(linewidth=2, foreground="black")])
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=1 - 0.3 / height, wspace=0.03, hspace=0.03)
    output_png = Path(output_png)
    figure.savefig(output_png, dpi=110, metadata={"Software": None})
    return output_png
