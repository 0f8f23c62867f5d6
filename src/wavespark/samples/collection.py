"""A small folder of synthetic heads as a hospital would hand it over: NIfTI and DICOM mixed, and
two files damaged on purpose."""

from pathlib import Path

import numpy as np
import pydicom

from wavespark.progress import OnProgress, ignore_progress
from wavespark.samples.files import write_dicom, write_nifti
from wavespark.samples.heads import synthetic_head
from wavespark.samples.truth import Truth

DAMAGED = (
    "damaged on purpose: a NIfTI file cut off in the middle",
    "damaged on purpose: a DICOM series without two of its slices",
)


def write_collection(folder: Path, patients: int = 6, on_progress: OnProgress = ignore_progress) -> Path:
    """Writes a CTA and a TOF-MRA of each patient, and two damaged inputs; does nothing where it has
    been done.

    Every second CTA is a classic DICOM series, every third TOF-MRA an enhanced one; the others are
    NIfTI. Anatomy seeds are the patients: `sub-000` and so on, or the DICOM PatientID. Their vessel
    maps and labels lie beside the folder, in `labels_of(folder)`.

    Args:
        folder: made if it is not there.
        patients: anatomy seeds 0 to `patients` - 1.
        on_progress: called with (done, total, message).

    Returns:
        The folder.
    """
    done = folder / ".complete"
    if done.exists():
        return folder
    total = 2 * patients + 2
    truth = Truth(labels_of(folder))
    for seed in range(patients):
        name = f"sub-{seed:03d}"
        on_progress(2 * seed, total, f"head {2 * seed + 1} of {2 * patients}")
        head = synthetic_head(
            seed, "CTA", shape=(96, 112, 80), spacing=(1.5, 1.5, 1.75), aneurysm="random" if seed % 2 else None
        )
        if seed % 2:
            written = write_dicom(head, folder / name / "cta", "classic", identifiers={"PatientID": name})
        else:
            written = write_nifti(head, folder / name / "anat" / f"{name}_cta.nii.gz")
        truth.add(head, f"{name}_cta", written, folder)
        on_progress(2 * seed + 1, total, f"head {2 * seed + 2} of {2 * patients}")
        head = synthetic_head(
            seed, "TOF-MRA", shape=(112, 128, 72), spacing=(1.25, 1.25, 1.75), aneurysm="random" if seed % 2 else None
        )
        if seed % 3 == 2:
            written = write_dicom(head, folder / name / "tof", "enhanced", identifiers={"PatientID": name})
        else:
            written = write_nifti(head, folder / name / "anat" / f"{name}_tof.nii.gz")
        truth.add(head, f"{name}_tof", written, folder)
    truth.write()
    _damage(folder, patients)
    on_progress(total, total, "")
    done.touch()
    return folder


def labels_of(folder: Path) -> Path:
    """Where `write_collection(folder)` puts what is true of its heads: see
    `wavespark.samples.truth`."""
    return folder.with_name(f"{folder.name}-labels")


def _damage(folder: Path, seed: int) -> None:
    head = synthetic_head(seed, "TOF-MRA", shape=(48, 48, 32), spacing=(3.0, 3.0, 4.0))
    whole = folder / "damaged" / f"sub-{seed:03d}_tof.nii.gz"
    write_nifti(head, whole)
    whole.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    series = write_dicom(head, folder / "damaged" / "cta", "classic", identifiers={"PatientID": f"sub-{seed:03d}"})
    # By number, not by name: a slice that is missing at an end leaves no gap to see.
    slices = sorted(series.iterdir(), key=lambda p: int(pydicom.dcmread(p, stop_before_pixels=True).InstanceNumber))
    for index in np.random.default_rng(seed).choice(np.arange(4, len(slices) - 4), 2, replace=False):
        slices[index].unlink()
