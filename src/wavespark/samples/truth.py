"""Truth of the synthetic heads of a collection, as tables for `probe`, `finetune` and `evaluate`.

FOLDER/labels.csv   source, contrast, label (path of the vessel map: 1 artery, 2 vein), one column
for each of `LABELS` FOLDER/points.csv   source, x, y, z (RAS mm), diameter (mm); empty coordinates
where there is no aneurysm FOLDER/vessels/     the maps, on the grid of their head
"""

import csv
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import pydicom

from wavespark.rsna_labels import LABELS
from wavespark.samples.heads import SyntheticHead


@dataclass
class Truth:
    """Collects heads while they are written."""

    folder: Path
    _labels: list[list[str]] = field(default_factory=list)
    _points: list[list[str]] = field(default_factory=list)

    def add(self, head: SyntheticHead, name: str, written: Path, root: Path) -> None:
        """Notes a head.

        Args:
            head: with its truth.
            name: of its map.
            written: its NIfTI file, or the folder of its DICOM series.
            root: the folder that will be prepared: sources are relative to it.
        """
        if written.is_dir():
            source = str(pydicom.dcmread(next(written.glob("*.dcm")), stop_before_pixels=True).SeriesInstanceUID)
        else:
            source = written.relative_to(root).as_posix()
        (self.folder / "vessels").mkdir(parents=True, exist_ok=True)
        place = f"vessels/{name}.nii.gz"
        nibabel.save(nibabel.Nifti1Image(head.vessels, head.affine), self.folder / place)
        self._labels.append([source, head.contrast, place, *(str(head.labels[label]) for label in LABELS)])
        spot = ["", "", "", ""] if head.sac is None else [f"{v:.2f}" for v in (*head.sac[0], head.sac[1])]
        self._points.append([source, *spot])

    def write(self) -> None:
        """Writes both tables."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tables = (
            ("labels.csv", ["source", "contrast", "label", *LABELS], self._labels),
            ("points.csv", ["source", "x", "y", "z", "diameter"], self._points),
        )
        for name, header, rows in tables:
            with (self.folder / name).open("w", encoding="utf-8", newline="") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(header)
                writer.writerows(rows)
