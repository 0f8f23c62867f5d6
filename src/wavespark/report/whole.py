"""Whole held-out slices at the head of the report: original, visible part, prediction, harmonic
inpainting.

Read from RUN/examples/whole_XXXXXXXX.safetensors. Axes: K slices, C channels, the two array axes
within a slice.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open

from wavespark.pages.markup import Html, join, tag
from wavespark.pages.numbers import count, number
from wavespark.pages.planes import PLANES, Plane
from wavespark.pages.png import data_uri, grey, grey_palette, png, thinned
from wavespark.report.values import channel_name, finite

_FILE = re.compile(r"whole_(\d{1,18})\.safetensors")
_LARGEST = 2**27
"""Values; a header that claims more is not read."""
_MARGIN = 4
"""Voxels around the head in a picture."""
_LONGEST_SIDE = 320
"""Pixels along a picture's longer side."""

_PARTS = {
    "slab": "a slab that no training crop touched",
    "volume": "a volume that was never trained on",
}


@dataclass(frozen=True, eq=False)
class Whole:
    """Slices of one held-out region."""

    step: int
    original: npt.NDArray[np.float32]
    """[K, C, a, b]."""
    reconstruction: npt.NDArray[np.float32]
    harmonic: npt.NDArray[np.float32]
    visible: npt.NDArray[np.bool_]
    """[K, a, b]."""
    foreground: npt.NDArray[np.bool_]
    about: dict[str, Any]

    @property
    def plane(self) -> Plane:
        """The anatomical plane of the slices."""
        return next(p for p in PLANES if p.axis == self.about.get("axis"))


def load_whole(folder: Path, missing: list[str]) -> Whole | None:
    """Read the newest file of whole slices; None if there is none, or it is damaged, which
    `missing` then says."""
    files = sorted((int(m[1]), p) for p in folder.glob("whole_*.safetensors") if (m := _FILE.fullmatch(p.name)))
    if not files:
        return None
    step, path = files[-1]
    try:
        return _read(step, path)
    except (OSError, SafetensorError, ValueError, TypeError, KeyError, AttributeError, StopIteration):
        missing.append(f"examples/{path.name}: cannot be read, so whole slices are left out here.")
        return None


def _read(step: int, path: Path) -> Whole:
    with safe_open(path, framework="np") as file:
        shape = tuple(file.get_slice("original").get_shape())
        if len(shape) != 4 or min(shape) < 1 or int(np.prod(shape, dtype=np.float64)) > _LARGEST:
            raise ValueError
        expected: dict[str, tuple[int, ...]] = {"original": shape, "reconstruction": shape, "harmonic": shape}
        expected |= {"visible": (shape[0], *shape[2:]), "foreground": (shape[0], *shape[2:])}
        if any(tuple(file.get_slice(name).get_shape()) != size for name, size in expected.items()):
            raise ValueError
        about = json.loads((file.metadata() or {})["whole"])
        whole = Whole(
            step=step,
            original=np.asarray(file.get_tensor("original"), dtype=np.float32),
            reconstruction=np.asarray(file.get_tensor("reconstruction"), dtype=np.float32),
            harmonic=np.asarray(file.get_tensor("harmonic"), dtype=np.float32),
            visible=file.get_tensor("visible") != 0,
            foreground=file.get_tensor("foreground") != 0,
            about=dict(about),
        )
    _ = whole.plane  # a wrong axis is a damaged file
    return whole


def opening_slice(whole: Whole) -> Html:
    """Build the picture of the first screen: four versions of the middle slice."""
    k = len(whole.original) // 2
    items = [tag("li", image, tag("span", words)) for words, image in _pictures(whole, k)]
    return tag("figure", tag("ul", *items), tag("figcaption", _caption(whole)), class_="whole")


def other_slices(whole: Whole) -> Html | None:
    """Build the slices that the first screen does not show."""
    others = [k for k in range(len(whole.original)) if k != len(whole.original) // 2]
    if not others:
        return None
    rows = [tag("ul", *(tag("li", i, tag("span", words)) for words, i in _pictures(whole, k))) for k in others]
    return join(tag("h3", "More slices of the same head"), tag("figure", *rows, class_="whole"))


def _pictures(whole: Whole, k: int) -> list[tuple[str, Html]]:
    limits = _window(whole, k)
    seen, plane = whole.visible[k], whole.plane
    versions = (
        ("Original", whole.original, None),
        ("Visible to the encoder", whole.original, ~seen),
        ("Predicted", whole.reconstruction, None),
        ("Harmonic inpainting", whole.harmonic, None),
    )
    box = _box_of(whole.foreground[k])
    return [
        (words, _image(plane, values[k, 0][box], limits, None if hidden is None else hidden[box], words))
        for words, values, hidden in versions
    ]


def _box_of(foreground: npt.NDArray[np.bool_]) -> tuple[slice, ...]:
    """Return the box around the head with a margin, or everything where there is no head."""
    if not foreground.any():
        return (slice(None), slice(None))
    rows = [np.flatnonzero(foreground.any(axis=1 - axis)) for axis in range(2)]
    return tuple(slice(max(0, int(r[0]) - _MARGIN), int(r[-1]) + 1 + _MARGIN) for r in rows)


def _image(
    plane: Plane,
    values: npt.NDArray,
    limits: tuple[float, float],
    hidden: npt.NDArray[np.bool_] | None,
    words: str,
) -> Html:
    pixels = thinned(grey(values, limits, hidden).T[::-1, ::-1], _LONGEST_SIDE)  # as `Plane.cut` turns a slice
    address = data_uri(png(pixels, grey_palette()))
    alt = f"{words}, {plane.name} slice of a whole head"
    return tag("div", tag("img", src=address, alt=alt), class_="tile")


def _window(whole: Whole, k: int) -> tuple[float, float]:
    values = whole.original[k, 0][whole.foreground[k]]
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(p) for p in np.percentile(values, (0.5, 99.5)))
    return (low, high) if high > low else (low, low + 1.0)


def _caption(whole: Whole) -> str:
    about = whole.about
    kind = " ".join(str(about[key]) for key in ("modality", "contrast") if about.get(key))
    channel = f", {channel_name(str(about.get('modality')), whole.original.shape[1], 0)}"
    name = f"{kind}{channel if whole.original.shape[1] > 1 else ''}"
    part = _PARTS.get(str(about.get("part")), _PARTS["volume"])
    loss, harmonic = finite(about, "normalised_loss"), finite(about, "harmonic_own_mean")
    scores = f" Normalised loss here: {number(loss)}, harmonic inpainting {number(harmonic)}." if loss else ""
    crops = finite(about, "crops")
    joined = f", put together from {count(crops, 'crop')} with masks of their own" if crops else ""
    return (
        f"{whole.plane.name.capitalize()} slice of {part} ({name}){joined}. Hidden cells are shown with their true mean; "
        f"the prediction also with their true standard deviation.{scores}"
    )
