"""The last checks, the same for every format: finite, not constant, the modality, and what is odd
but usable."""

import numpy as np

from wavespark.errors import VolumeError
from wavespark.volumes.contrasts import NOTES_NOT_FOR_PRETRAINING, Label, label_of
from wavespark.volumes.modality import is_phase, modality_by_values, sample
from wavespark.volumes.naming import Kind, label_on_ct
from wavespark.volumes.orientation import is_usable, spacing_of
from wavespark.volumes.settings import ReadingSettings
from wavespark.volumes.volume import Volume, content_hash

_FEW = 16  # distinct values: fewer look like a label map
_SPACING_MM = (0.005, 200.0)


def check_size(shape: tuple[int, ...], settings: ReadingSettings) -> int:
    """Number of voxels of a declared shape.

    Raises:
        VolumeError: `corrupt` if a dimension is not positive, `several_volumes`, `single_slice`,
            `too_large`.
    """
    if any(s < 1 for s in shape):
        raise VolumeError("corrupt", "a declared dimension is not positive")
    if len(shape) > 3:
        sentence = f"it holds several volumes ({' x '.join(map(str, shape[:7]))}): split it into 3-D files first, for example with fslsplit"
        raise VolumeError("several_volumes", sentence)
    if len(shape) < 3 or sorted(shape)[0] == 1:
        size = " x ".join(map(str, shape))
        raise VolumeError(
            "single_slice", f"it holds a single slice ({size}): a volume needs three dimensions of at least 2"
        )
    count = 1
    for s in shape:
        count *= int(s)
    if count > settings.max_voxels:
        limit = settings.max_voxels
        raise VolumeError("too_large", f"{list(shape)} is {count} voxels and the limit is {limit}: raise max_voxels")
    return count


def check_affine(affine: np.ndarray) -> None:
    """Refuses an affine that is not a place in space.

    Raises:
        VolumeError: `bad_affine`, or `bad_spacing` for steps that no scanner has.
    """
    if not is_usable(affine):
        raise VolumeError("bad_affine", "the matrix from voxels to millimetres is not finite or cannot be inverted")
    low, high = _SPACING_MM
    if not all(low <= s <= high for s in spacing_of(affine)):
        raise VolumeError("bad_spacing", f"spacing must lie between {low} and {high} mm, got {spacing_of(affine)}")


def finish(
    voxels: np.ndarray,
    affine: np.ndarray,
    *,
    kind: Kind,
    id: str,
    patient: str,
    notes: set[str],
    settings: ReadingSettings,
    session: str | None = None,
    valid: np.ndarray | None = None,
) -> Volume:
    """The volume, after the checks that need its values.

    Args:
        voxels: float32 [i, j, k].
        affine: [4, 4], index to RAS mm.
        kind: modality, contrast and note as far as known; an unknown modality is taken from the
            values, with the note `modality_guessed` where they do not decide it.
        id: keyed hash of the source.
        patient: keyed hash of the patient.
        notes: what was odd so far.
        settings: overrides.
        session: keyed hash of the session, None if it is not known.
        valid: bool [i, j, k] or None.

    Raises:
        VolumeError: `bad_affine`, `bad_spacing`, `non_finite`, `constant_volume`.
    """
    check_affine(affine)
    flat = voxels.T.ravel()  # a view: every reader builds [i, j, k] with i fastest
    low, high = float(flat.min()), float(flat.max())  # a NaN anywhere makes both NaN
    if not np.isfinite([low, high]).all():
        raise VolumeError("non_finite", "it holds values that are not finite: it was saved by a step that failed")
    if low == high:
        raise VolumeError("constant_volume", f"every voxel has the value {low:g}")
    notes = set(notes)
    label = Label(kind.contrast, kind.note)
    modality = settings.modality or kind.modality
    if modality is None:
        modality, guessed = _guess(voxels, kind)
        notes |= {"modality_guessed"} if guessed else set()
        label = label_on_ct(label) if modality == "CT" else label
    if settings.contrast is not None:
        label = label_of(settings.contrast)
        notes -= NOTES_NOT_FOR_PRETRAINING - {"time_series"}
    elif modality == "MR" and label.note is None and is_phase(low, high):
        label = label_of("PHASE")
    notes |= {label.note} if label.note else set()
    if _is_few(flat):
        notes.add("few_distinct_values")
    if modality == "CT" and _is_suspicious(flat, low):
        notes.add("suspicious_hu")
    return Volume(
        voxels=voxels[None],
        affine=np.array(affine, np.float64),
        modality=modality,
        contrast=label.contrast,
        id=id,
        patient=patient,
        session=session,
        content=content_hash(voxels[None], affine),
        notes=tuple(sorted(notes)),
        valid=valid,
    )


def _guess(voxels: np.ndarray, kind: Kind) -> tuple[str, bool]:
    """The modality by values, and whether that is a guess; a name such as `case3_t1` counts where
    values leave it open."""
    by_values = modality_by_values(voxels)
    if kind.contrast is None or kind.contrast == "CTA":
        return by_values.modality, not by_values.certain
    if by_values.modality == "CT":
        return ("CT" if by_values.certain else "MR"), True
    return "MR", False


def _is_few(flat: np.ndarray) -> bool:
    return len(np.unique(sample(flat))) <= _FEW and len(np.unique(flat)) <= _FEW


def _is_suspicious(flat: np.ndarray, low: float) -> bool:
    """True unless there is air near -1000 HU, or at least fat, and next to nothing far below
    air."""
    far_below = float((sample(flat) < -1500).mean())
    return low > -50 or far_below > 0.02
