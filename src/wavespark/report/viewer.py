"""Cases to turn and cut in three dimensions: original, visible part and reconstruction side by
side, drawn by NiiVue in the browser.

Everything is in the page: NiiVue (BSD-2, `niivue/LICENSE`) compressed, the volumes as 8-bit NIfTI.
The page's policy lets exactly two scripts run, by their
hashes: ours and NiiVue's. Nothing is loaded, and nothing starts before it is asked for.
"""

import base64
import gzip
import hashlib
from functools import cache
from importlib.resources import files

import nibabel as nib
import numpy as np
import numpy.typing as npt

from wavespark.pages.markup import Html, tag
from wavespark.pages.png import Bytes, grey
from wavespark.report.examples import Case
from wavespark.report.planes import window

_LONGEST_SIDE = 80
"""Voxels; longer sides are thinned out, to keep the page small."""


def viewer(case: Case, number: int) -> Html:
    """Build the view of a case in three dimensions; it appears where scripts run, below
    `library()`."""
    canvases = [
        tag(
            "div",
            tag(
                "canvas",
                width=480,
                height=480,
                role="img",
                aria_label=f"Case {number} in three dimensions: {words}",
                data_volume=base64.b64encode(volume).decode("ascii"),
                data_name=name,
            ),
            tag("p", words),
        )
        for name, words, volume in _volumes(case)
    ]
    start = tag("button", f"Turn case {number} in 3-D", type="button")
    hint = tag("p", "The cut shows the inside. It starts in seconds.", class_="note", role="status")
    shown = tag("div", *canvases, class_="volumes", hidden=True)
    return tag("figure", start, hint, shown, class_="viewer", id=f"3d-{number}" if number > 1 else "3d", hidden=True)


def library() -> Html:
    """Build the part that all views share: NiiVue, compressed; comes before the first view."""
    return tag("template", base64.b64encode(_library()).decode("ascii"), id="niivue-code")


def start_script() -> Html:
    """Build the script that starts a view; comes after the last one."""
    return tag("script", _own())


def script_sources() -> str:
    """The two scripts that the page may run, as sources of its policy (CSP level 3, hash
    source)."""
    texts = (_own().encode("utf-8"), gzip.decompress(_library()))
    return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(t).digest()).decode('ascii')}'" for t in texts)


@cache
def _library() -> bytes:
    return files("wavespark.report").joinpath("niivue/niivue-0.69.0.umd.js.gz").read_bytes()


@cache
def _own() -> Html:
    return Html(files("wavespark.report").joinpath("viewer.js").read_text(encoding="utf-8"))


def _volumes(case: Case) -> list[tuple[str, str, bytes]]:
    """Name, words and NIfTI of what is shown; all with the grey values of the still pictures."""
    limits = window(case)
    original, made = grey(case.original[0], limits), grey(case.reconstruction[0], limits)
    # 0 is see-through: the hidden cells are holes.
    seen = np.where(case.visible, np.maximum(original, 1), 0).astype(np.uint8)
    parts = (
        ("original", "original", original),
        ("visible", "visible to the encoder", seen),
        ("made", "reconstruction", made),
    )
    return [(name, words, _nifti(voxels, case.spacing)) for name, words, voxels in parts]


def _nifti(voxels_DHW: Bytes, spacing: tuple[float, float, float]) -> bytes:
    """A compressed NIfTI-1 file, RAS, its centre at the origin; the same bytes each time."""
    step = -(-max(voxels_DHW.shape) // _LONGEST_SIDE)
    voxels: npt.NDArray[np.uint8] = np.ascontiguousarray(voxels_DHW[::step, ::step, ::step])
    mm = np.asarray(spacing) * step
    affine = np.diag([*mm, 1.0])
    affine[:3, 3] = -mm * (np.asarray(voxels.shape) - 1) / 2
    return gzip.compress(nib.Nifti1Image(voxels, affine).to_bytes(), 9, mtime=0)
