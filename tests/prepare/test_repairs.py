"""Opt-in repairs of reading: refused without being asked for, and recorded where they were needed."""

import numpy as np
import pytest

from prepare.heads import head_array
from volumes.written import Series
from wavespark.files import read_lines
from wavespark.prepare import load_recipe, open_store, prepare

GEOMETRY = "reading.assume_geometry={spacing=[4.0,4.0,4.0],axes='LPS'}"


def without_geometry(dataset, k):
    del dataset["ImagePositionPatient"], dataset["ImageOrientationPatient"], dataset["PixelSpacing"]


@pytest.mark.parametrize(
    ("repair", "note", "series"),
    [
        ("reading.allow_gaps=true", "allow_gaps", {"skip": (9,)}),
        ("reading.hu_already_applied=true", "hu_already_applied", {"intercept": -1024.0}),
        (GEOMETRY, "assumed_geometry", {"change": without_geometry}),
    ],
)
def test_each_opt_in_repair_is_in_the_manifest_of_the_volume_that_needed_it(tmp_path, repair, note, series):
    hu = head_array((24, 28, 22), "CT").T.astype(np.int16)
    settings = {"stored": hu, "intercept": 0.0, "pixel": (4.0, 4.0), "step": (0.0, 0.0, 4.0)}
    Series(**settings | {"uid": "1.2.826.0.1.1"}).write(tmp_path / "data" / "whole")
    Series(**settings | {"uid": "1.2.826.0.1.2"} | series).write(tmp_path / "data" / "odd")
    prepare(tmp_path / "data", tmp_path / "store", load_recipe("head-1mm", ["spacing_mm=4.0", repair]), workers=0)
    notes = sorted(tuple(r["notes"]) for r in read_lines(tmp_path / "store" / "manifest.jsonl", strict=True))
    assert notes == [(), (note,)] and sorted(v.notes for v in open_store(tmp_path / "store")) == notes
