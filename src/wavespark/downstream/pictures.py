"""Test cases of a segmentation as pictures: image, truth and prediction in three planes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import ndimage

from wavespark.downstream.items import Labelled
from wavespark.files import write_file, writing
from wavespark.pages.markup import Html, join, tag
from wavespark.pages.planes import PLANES, Plane
from wavespark.pages.png import Bytes, data_uri, png

FOLDER = "cases"
MOST_CASES = 3
"""Test cases that are kept; each is about 100 kB of a page."""
_GREYS = 200
_COLOURS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (204, 121, 167), (213, 94, 0), (0, 114, 178))
"""Colours of classes (Okabe and Ito), one after the other and then again from the first."""
_PIXELS = 288
"""Shortest length, in pixels, of the longest side of a picture: contours are thin lines on large
pixels."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One plane of a test case."""

    image: Bytes
    """uint8 [rows, columns]: 0 to 199 from black to white."""
    truth: np.ndarray
    """uint16 [rows, columns]."""
    prediction: np.ndarray
    aspect: float
    """Width over height in mm."""

    @classmethod
    def of(cls, item: Labelled, voxels: np.ndarray, truth: np.ndarray, prediction: np.ndarray, plane: Plane) -> Self:
        """Cut the slice with the most labelled tissue, of truth and prediction together; the middle
        one without any."""
        labelled = (truth > 0) | (prediction > 0)
        counts = labelled.sum(axis=tuple(a for a in range(3) if a != plane.axis))
        at = int(counts.argmax()) if counts.any() else truth.shape[plane.axis] // 2
        low, high = np.quantile(voxels, (0.005, 0.995))
        unit = np.clip((plane.cut(voxels, at) - low) / max(float(high - low), 1e-9), 0, 1)
        image = np.rint(unit * (_GREYS - 1)).astype(np.uint8)
        truth, prediction = (plane.cut(labels, at).astype(np.uint16) for labels in (truth, prediction))
        return cls(image, truth, prediction, plane.aspect(item.volume.size, item.volume.spacing))


def save_case(run: Path, number: int, item: Labelled, prediction: Any) -> None:
    """Keep three slices of a segmented test case in RUN/cases, for the report; other predictions
    are not kept.

    Args:
        run: folder of the comparison.
        number: of the case, from 0; beyond `MOST_CASES` nothing is kept.
        item: the volume and its label map.
        prediction: whole numbers [D, H, W].
    """
    if number >= MOST_CASES or item.map is None or not isinstance(prediction, np.ndarray) or prediction.ndim != 3:
        return
    voxels, truth = item.volume.read()[0], item.read_map()
    arrays: dict[str, np.ndarray] = {}
    facts = {"id": item.volume.id}
    for plane in PLANES:
        cut = Slice.of(item, voxels, truth, prediction, plane)
        for key in ("image", "truth", "prediction"):
            arrays[f"{plane.name}_{key}"] = np.ascontiguousarray(getattr(cut, key))
        facts[f"{plane.name}_aspect"] = repr(float(cut.aspect))
    with writing(run):
        (run / FOLDER).mkdir(exist_ok=True)
    write_file(run / FOLDER / f"case-{number}.safetensors", save(arrays, facts))


def case_figures(run: Path, names: Sequence[str]) -> Html | None:
    """Draw the kept cases, with a legend of the classes.

    Args:
        run: folder of the comparison.
        names: of classes 1, 2, ...

    Returns:
        The figures; `None` if no case was kept.
    """
    figures: list[Html] = []
    highest = 0
    for path in sorted((run / FOLDER).glob("case-*.safetensors"))[:MOST_CASES]:
        try:
            with safe_open(path, "np") as file:
                facts = file.metadata()
                case = {plane.name: _read(file, facts, plane.name) for plane in PLANES}
                name = facts["id"]
        except (SafetensorError, OSError, ValueError, KeyError, TypeError):
            continue
        highest = max(highest, *(int(max(s.truth.max(), s.prediction.max())) for s in case.values()))
        figures.append(_figure(len(figures) + 1, name, case))
    return join(_legend(highest, names), *figures) if figures else None


def _read(file: Any, facts: Mapping[str, str], plane: str) -> Slice:
    image, truth, prediction = (file.get_tensor(f"{plane}_{key}") for key in ("image", "truth", "prediction"))
    if not image.shape == truth.shape == prediction.shape or image.ndim != 2 or image.dtype != np.uint8:
        raise ValueError("slices of one shape")
    return Slice(np.minimum(image, _GREYS - 1), truth, prediction, float(facts[f"{plane}_aspect"]))


def _figure(number: int, name: str, case: Mapping[str, Slice]) -> Html:
    heads = ("Image", "Truth", "Prediction")
    rows = []
    for plane in PLANES:
        cut = case[plane.name]
        pictures = (cut.image, outlined(cut.image, cut.truth), outlined(cut.image, cut.prediction))
        sides = (("left", plane.left), ("right", plane.right), ("top", plane.top))
        marks = [tag("span", letter, class_=f"mark {side}", aria_hidden="true") for side, letter in sides]
        cells = []
        for column, (head, picture) in enumerate(zip(heads, pictures, strict=True)):
            alt = f"Case {number}, {plane.name}: {head.lower()}"
            image = tag("img", src=data_uri(png(picture, palette())), alt=alt, style=f"aspect-ratio:{cut.aspect:.4f}")
            tile = tag("div", image, class_="tile")
            cells.append(tag("td", tag("div", tile, *(marks if column == 0 else ()), class_="marked")))
        rows.append(tag("tr", tag("th", tag("span", plane.name), scope="row"), *cells))
    top = tag("tr", tag("td"), *(tag("th", head, scope="col") for head in heads))
    table = tag("table", tag("thead", top), tag("tbody", *rows), class_="panels")
    scroll = tag("div", table, class_="scroll", tabindex="0", role="region", aria_label=f"Pictures of case {number}")
    caption = tag("figcaption", tag("h3", f"Case {number}: ", tag("span", name, class_="id")))
    return tag("figure", caption, scroll, class_="case")


def _legend(highest: int, names: Sequence[str]) -> Html:
    items = []
    for k in range(1, min(highest, len(_COLOURS)) + 1):
        r, g, b = _COLOURS[(k - 1) % len(_COLOURS)]
        swatch = tag("span", class_="swatch", style=f"border-color:rgb({r},{g},{b})", aria_hidden="true")
        items.append(tag("li", swatch, names[k - 1] if k <= len(names) else f"class {k}"))
    return tag("ul", *items, class_="legend")


def outlined(image: Bytes, labels: np.ndarray) -> Bytes:
    """Draw the outline of every class over a picture.

    Args:
        image: uint8 [rows, columns], as in `Slice`.
        labels: whole numbers [rows, columns], 0 for background.

    Returns:
        Indices of `palette`, enlarged by a whole factor.
    """
    factor = -(-_PIXELS // max(image.shape))
    large, classes = (np.repeat(np.repeat(a, factor, 0), factor, 1) for a in (image, labels))
    for value in np.unique(classes[classes > 0]):
        inside = classes == value
        border = inside & ~ndimage.binary_erosion(inside, iterations=max(1, factor // 2))
        large[border] = _GREYS + (int(value) - 1) % len(_COLOURS)
    return large


def palette() -> Bytes:
    """Return [207, 3]: 200 greys and the colours of the classes."""
    greys = np.repeat(np.rint(np.linspace(0, 255, _GREYS)).astype(np.uint8)[:, None], 3, axis=1)
    return np.concatenate([greys, np.array(_COLOURS, np.uint8)])
