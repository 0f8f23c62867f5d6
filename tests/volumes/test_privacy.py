"""What identifies a patient appears in nothing that reading shows."""

import pickle
import re

import pytest

from volumes.bad import BAD
from volumes.good import GOOD
from wavespark.errors import VolumeError
from wavespark.volumes import ReadingSettings, patient_id, read_volumes, source_id
from wavespark.volumes.privacy import bids_subject, unquoted

PLANTED = re.compile(r"PLANTED|19700203|3680043|\d\.dcm|\ba\.nii|scan\.nii|/in\b")
CASES = {f"good {n}": (c.write, c.settings) for n, c in GOOD.items()} | {
    f"bad {n}": (write, ReadingSettings()) for n, (write, _) in BAD.items()
}


@pytest.mark.parametrize("name", CASES)
def test_no_planted_identifier_is_shown(name, tmp_path, capfd, caplog, recwarn):
    write, settings = CASES[name]
    write(tmp_path / "in")
    capfd.readouterr()
    recwarn.clear()
    with caplog.at_level(0):
        found = read_volumes(tmp_path / "in", settings=settings)
    assert not recwarn.list
    out, err = capfd.readouterr()
    shown = [repr(found), out, err, caplog.text, *(repr(v.notes) for v in found.volumes)]
    kept = pickle.dumps((found.refused, [(v.id, v.patient, v.contrast, v.notes) for v in found.volumes]))
    for text in (*shown, kept.decode("latin-1")):
        assert not PLANTED.search(text), text


def test_a_library_that_quotes_a_value_is_not_heard():
    with pytest.raises(VolumeError) as raised, unquoted("corrupt", "cannot be read"):
        float("PLANTED^NAME")
    assert str(raised.value) == "cannot be read"
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__


def test_ids_depend_on_the_secret_and_tell_sources_and_patients_apart():
    assert source_id(b"a", "x") != source_id(b"b", "x")
    assert source_id(b"a", "x") != patient_id(b"a", "x")
    assert re.fullmatch("[0-9a-f]{24}", source_id(b"a", b"x"))
    assert source_id(b"a", "\udcff") == source_id(b"a", b"\xff")


def test_the_bids_subject_is_found_in_folders_and_names():
    assert bids_subject(b"data/sub-A07/anat/x.nii.gz") == b"sub-A07"
    assert bids_subject(b"sub-3_T1w.nii.gz") == b"sub-3"
    assert bids_subject(b"mysub-3.nii.gz") is None
