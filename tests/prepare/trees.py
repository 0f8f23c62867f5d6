"""Small copies of the folders of public data sets."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np

from prepare.heads import head_array, write_head
from volumes.written import Series
from wavespark.rsna_labels import LABELS

LEFT_MCA, PRESENT = "Left Middle Cerebral Artery", "Aneurysm Present"


def rsna(root: Path) -> dict[str, Series]:
    """CTA, MRA and T2 series, one with a segmentation and marks; a row without a folder; a scout; defects of the real one."""
    kinds = {"1.2.826.1": "CTA", "1.2.826.2": "MRA", "1.2.826.3": "MRI T2"}
    made = {}
    for number, (uid, kind) in enumerate(kinds.items()):
        modality = "CT" if kind == "CTA" else "MR"
        stored = head_array((30, 34, 26), modality, number).astype(np.int16).T.copy()  # slice, row, column
        series = Series(stored=stored, uid=uid, modality=modality, step=(0, 0, 6.0), pixel=(5.0, 6.0))
        series.intercept = 0.0
        series.name = lambda k, uid=uid: f"{uid}.{k + 1}.dcm"
        made[uid] = series.write(root / "series" / uid)
    rows = []
    for uid, kind in [*kinds.items(), ("1.2.826.999", "CTA")]:
        row = {"SeriesInstanceUID": uid, "PatientAge": "64", "PatientSex": "Female", "Modality": kind}
        row |= dict.fromkeys(LABELS, "0")
        if uid == "1.2.826.1":
            row |= {LEFT_MCA: "1", PRESENT: "1"}
        rows.append(row)
    write_table(root / "train.csv", rows)
    coordinates = "{'x': 10.5, 'y': 20.25}"
    evil = "__import__('os').system('touch /tmp/never')"
    places = [("1.2.826.1", "1.2.826.1.4", coordinates, LEFT_MCA), ("1.2.826.1", "1.2.826.1.5", evil, LEFT_MCA)]
    places += [
        ("1.2.826.999", "1.2.826.999.1", coordinates, LEFT_MCA),
        ("1.2.826.1", "1.2.826.1.6", coordinates, "Jane Doe"),
        ("1.2.826.1", "1.2.826.1.4", "{'x': 1e999, 'y': 2}", LEFT_MCA),
        ("1.2.826.1", "1.2.826.1.4", "{'x': 1, 'y': 2, 'f': 1e999}", LEFT_MCA),
    ]
    names = ("SeriesInstanceUID", "SOPInstanceUID", "coordinates", "location")
    write_table(root / "train_localizers.csv", [dict(zip(names, place, strict=True)) for place in places])
    (root / "segmentations").mkdir()
    series = made["1.2.826.1"]
    labels = np.zeros(series.stored.T.shape, np.uint8)
    labels[12:18, 14:20, 10:16] = 5
    nib.save(nib.Nifti1Image(labels, series.affine), root / "segmentations" / "1.2.826.1_cowseg.nii")
    nib.save(nib.Nifti1Image(labels[:-4], series.affine), root / "segmentations" / "1.2.826.1.nii.gz")
    nib.save(nib.Nifti1Image(labels, series.affine), root / "segmentations" / "1.2.826.77.nii.gz")
    return made


def write_table(path: Path, rows: list[dict]) -> None:
    """A CSV file."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def openmind(root: Path, form: str) -> None:
    """Two studies with a subject of the same name each; the second scan has an anonymisation mask."""
    scans = []
    for number, study in enumerate(("ds000001", "ds000002")):
        for session, kind in (("ses-1", "T1w"), ("ses-2", "T2w")):
            relative = f"{study}/sub-01/{session}/anat/sub-01_{session}_{kind}.nii.gz"
            write_head(root / relative, 10 * number + (kind == "T2w"))
            mask = relative.replace(".nii.gz", "_anon.nii.gz")
            array = np.zeros((24, 28, 22), np.uint8)
            array[:, 20:] = 1
            nib.save(nib.Nifti1Image(array, np.diag([4, 4, 4, 1])), root / mask)
            scans.append((study, session, kind, relative, mask if session == "ses-2" else None))
    if form == "csv":
        rows = [
            {"unique_id": n, "image_path": r, "modality": k, "anon_mask_path": m or "", "age": "33"}
            for n, (_, _, k, r, m) in enumerate(scans)
        ]
        write_table(root / "openneuro_metadata.csv", rows)
        return
    studies: dict = {}
    for study, session, kind, relative, mask in scans:
        subjects = studies.setdefault(study, {"dataset_index": study, "name": None, "dataset_info": {}, "subjects": {}})
        subject = subjects["subjects"].setdefault(
            "sub-01", {"subject_id": "sub-01", "subject_info": {"age": 33}, "sessions": {}}
        )
        image = {
            "name": relative.split("/")[-1],
            "modality": kind,
            "image_path": f"$openmind/{relative}",
            "image_info": {},
        }
        image["associated_masks"] = {"anonymization_mask": mask and f"$openmind/{mask}", "anatomy_mask": None}
        subject["sessions"][session] = {"session_id": session, "session_info": None, "images": [image]}
    document = {"collection_index": 745, "collection_name": "Dataset745_OpenMind", "datasets": studies}
    (root / "pretrain_data.json").write_text(json.dumps(document, indent=4))


def bids(root: Path) -> None:
    """Two subjects: labels in derivatives and beside the image, a deface mask, a derived image that is no raw data."""
    (root / "sub-01").mkdir(parents=True)
    (root / "dataset_description.json").write_text('{"Name": "PLANTED", "BIDSVersion": "1.10.0"}')
    for subject in ("sub-01", "sub-02"):
        write_head(root / subject / "anat" / f"{subject}_T1w.nii.gz", int(subject[-1]))
        write_head(root / subject / "anat" / f"{subject}_acq-fast_T2w.nii.gz", 5 + int(subject[-1]))
    derived = root / "derivatives" / "seg" / "sub-01" / "anat"
    derived.mkdir(parents=True)
    labels = np.zeros((24, 28, 22), np.int16)
    labels[8:16, 10:18, 8:14] = 3
    affine = np.diag([4, 4, 4, 1])
    for path in (
        derived / "sub-01_desc-aseg_dseg.nii.gz",
        derived / "sub-01_acq-fast_label-lesion_mask.nii.gz",
        derived / "sub-77_label-lesion_mask.nii.gz",
        root / "sub-02" / "anat" / "sub-02_mod-T1w_defacemask.nii.gz",
    ):
        nib.save(nib.Nifti1Image(labels, affine), path)
    write_head(derived / "sub-01_space-MNI152_desc-preproc_T1w.nii.gz", 9)


def deeplesion(root: Path, write_png) -> None:
    """A head with two gaps and a body, both as 16-bit slices."""
    head = head_array((60, 64, 40), "CT", 1)
    body = torso((60, 64, 40))
    rows = []
    for name, volume, skip in (("000001_01_01", head, {12, 26}), ("000002_03_01", body, set())):
        folder = root / "Images_png" / name
        folder.mkdir(parents=True)
        for k in range(volume.shape[2]):
            if k not in skip:
                write_png(folder / f"{k + 100:03d}.png", (volume[:, :, -1 - k].T[::-1, ::-1] + 32768).astype(np.uint16))
        rows.append({"File_name": f"{name}_110.png", "Spacing_mm_px_": "3.2, 3.2, 4.5"})
    write_table(root / "DL_info.csv", rows)


def torso(shape: tuple[int, int, int]) -> np.ndarray:
    """HU of a chest or belly: soft tissue, open ribs, a spine with its canal, air in the middle; float32."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    out = np.full(shape, -1000.0, np.float32)
    radius = np.sqrt((x / 0.95) ** 2 + (y / 0.7) ** 2)
    out[radius < 1] = 40
    out[(radius < 0.6) & (z > 0)] = -850
    out[(radius > 0.8) & (radius < 0.9) & (np.sin(9 * np.arctan2(y, x) + 6 * z) > 0.3)] = 600
    spine = np.sqrt(x**2 + (y + 0.55) ** 2)
    out[spine < 0.16] = 500
    out[spine < 0.07] = 30
    return out
