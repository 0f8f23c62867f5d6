"""Hostile data given to `prepare` (S2): refused or quarantined, in little memory and time, whatever it claims."""

import gzip
import json
import os
import struct
import subprocess
import sys
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from prepare.heads import write_head
from volumes.bad import BAD
from wavespark.cli.inspect import _reveal
from wavespark.files import read_lines
from wavespark.prepare import open_store, prepare

CHILD = """
import json, resource, sys
from pathlib import Path
from wavespark.errors import InputError
from wavespark.prepare import prepare
told = {}
for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        report = prepare(folder, Path(sys.argv[2]) / folder.name)
        told[folder.name] = [report.prepared, [r.reason for r in report.refused]]
    except InputError as error:
        told[folder.name] = [0, [error.reason]]
print(json.dumps({"told": told, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def run_child(data, store):
    """What became of each folder, and the peak memory of a fresh process, MB."""
    told = subprocess.run(
        [sys.executable, "-c", CHILD, str(data), str(store)], check=True, capture_output=True, text=True
    )
    assert "PLANTED" not in told.stdout + told.stderr
    document = json.loads(told.stdout)
    return document["told"], document["megabytes"]


def test_the_whole_corpus_of_bad_inputs_is_refused_and_revealed_within_one_and_a_half_gigabytes(tmp_path):
    for name, (write, _) in BAD.items():
        write(tmp_path / "data" / name)
    told, megabytes = run_child(tmp_path / "data", tmp_path / "stores")
    for name, (_, reason) in BAD.items():
        prepared, reasons = told[name]
        assert prepared == 0 and reason in reasons, name
        for line in read_lines(tmp_path / "stores" / name / "quarantine.jsonl", strict=True):
            assert _reveal(tmp_path / "stores" / name, (line["source_id"],))[line["source_id"]], name
    assert megabytes < 1536


def lying_nifti(path, shape=(30000, 30000, 30000)):
    """A NIfTI header that declares far more than there is."""
    header = nib.Nifti1Header()
    header.set_data_shape((4, 4, 4))
    header.set_data_dtype(np.int16)
    data = bytearray(header.binaryblock + b"\0" * 4 + bytes(128))
    data[344:348] = b"n+1\0"
    struct.pack_into("<8h", data, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<f", data, 108, 352.0)
    path.write_bytes(bytes(data))


def bomb(path):
    """A gzip stream of a small label map, then 400 MB of zeros."""
    image = nib.Nifti1Image(np.ones((24, 28, 22), np.uint8), np.diag([4, 4, 4, 1]))
    with gzip.open(path, "wb", 9) as file:
        file.write(image.to_bytes())
        for _ in range(400):
            file.write(bytes(1 << 20))


@pytest.mark.parametrize("kind", ["lies", "bomb", "pipe", "link"])
def test_a_hostile_label_map_costs_the_label_map_and_not_the_volume_or_the_machine(tmp_path, kind):
    root = tmp_path / "data"
    write_head(root / "scan.nii.gz", 0)
    path = root / "labels.nii.gz"
    if kind == "lies":
        lying_nifti(path)
    elif kind == "bomb":
        bomb(path)
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        write_head(root / "inner.nii.gz", 1)
        path.symlink_to(root / "inner.nii.gz")
    (root / "list.csv").write_text("source,label\nscan.nii.gz,labels.nii.gz\n")
    tracemalloc.start()  # the peak of the process could be one of an earlier test
    try:
        report = prepare(root / "list.csv", tmp_path / "store")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert report.prepared == 1 and len(report.refused) == 1
    assert open_store(tmp_path / "store")[0].labels() == ()
    assert peak < 300 << 20


@pytest.mark.parametrize(
    "text",
    [
        "../scan.nii.gz",
        "/etc/passwd",
        "https://x/scan.nii.gz",
        "a\0b.nii",
        "C:\\scan.nii",
        "x/" * 3000,
        "..\\scan.nii.gz",
    ],
)
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_a_manifest_that_leads_out_of_its_folder_is_refused_and_nothing_is_made(tmp_path, text, form):
    path = tmp_path / f"list.{form}"
    path.write_text(f'source\n"{text}"\n' if form == "csv" else json.dumps({"source": text}) + "\n")
    with pytest.raises(ValueError) as caught:
        prepare(path, tmp_path / "store")
    assert getattr(caught.value, "reason", "") == "bad_manifest"
    assert not list((tmp_path / "store").glob("items/*"))


def test_settings_that_are_code_stay_text(tmp_path):
    write_head(tmp_path / "data" / "scan.nii.gz", 0)
    recipe = tmp_path / "evil.toml"
    recipe.write_text("spacing_mm = \"__import__('os').system('touch never')\"\n")
    with pytest.raises(ValueError, match="spacing_mm"):
        prepare(tmp_path / "data", tmp_path / "store", recipe)
    for text in ("[[a]]\n" * 20000, "a = " + "[" * 5000):
        recipe.write_text(text)
        with pytest.raises(ValueError, match=r"evil\.toml"):
            prepare(tmp_path / "data", tmp_path / "store", recipe)
