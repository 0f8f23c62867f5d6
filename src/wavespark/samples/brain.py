"""A real head volume that comes with an installed package, so that nothing is downloaded.

nilearn ships the skull-stripped MNI152 2009a T1 average at 1 mm with its grey- and white-matter
maps (Fonov et al., "Unbiased average age-appropriate brain templates from birth to adulthood",
NeuroImage 47, 2009; permissive licence).
"""

from importlib.util import find_spec
from pathlib import Path
from typing import Literal, get_args

from wavespark.errors import DependencyError

BrainMap = Literal["t1", "gm", "wm"]


def mni152_brain(kind: BrainMap = "t1") -> Path:
    """The path of the MNI152 brain at 1 mm, a gzipped NIfTI file.

    nilearn is located, not imported: its import takes seconds and warns.

    Args:
        kind: `"t1"` for the T1-weighted image, `"gm"` and `"wm"` for its grey- and white-matter
            maps.

    Raises:
        DependencyError: if nilearn (extra `samples`) is not installed, or does not ship the file.
        ValueError: if `kind` is another word.
    """
    if kind not in get_args(BrainMap):
        raise ValueError(f"kind must be one of {', '.join(get_args(BrainMap))}, got {kind!r}")
    spec = find_spec("nilearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "datasets" / "data" / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
        if path.is_file():
            return path
    raise DependencyError("nilearn", "samples", "the MNI152 brain")
