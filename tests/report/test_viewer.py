"""The 3-D viewer: what it shows, what the page lets run, and that a real browser draws it from file://."""

import base64
import gzip
import hashlib
import re
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from wavespark.report import read_run, write_report
from wavespark.report import viewer as viewer_module

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *(
        "--headless",
        "--no-sandbox",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
        "--disable-background-networking",
    ),
    *("--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
    *("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--virtual-time-budget=30000"),
]
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def volumes(page, case=0):
    shown = re.findall(r'data-volume="([^"]+)" data-name="(\w+)"', page)[3 * case : 3 * case + 3]
    return {name: gzip.decompress(base64.b64decode(data)) for data, name in shown}


def test_the_volumes_are_what_the_still_pictures_show_as_nibabel_reads_them(run):
    case = read_run(run).examples.cases[0]
    read = {name: nib.Nifti1Image.from_bytes(data) for name, data in volumes(write_report(run).read_text()).items()}
    assert set(read) == {"original", "visible", "made"}
    original, seen, made = (np.asarray(read[name].dataobj) for name in ("original", "visible", "made"))
    assert original.dtype == np.uint8 and original.shape == case.visible.shape
    assert nib.aff2axcodes(read["original"].affine) == ("R", "A", "S")
    assert (seen[~case.visible] == 0).all() and (seen[case.visible] == np.maximum(original, 1)[case.visible]).all()
    assert np.array_equal(made[case.visible], original[case.visible])
    assert np.corrcoef(original.ravel(), case.original[0].ravel())[0, 1] > 0.9


def test_every_case_that_is_shown_has_a_view_of_its_own(run):
    page = write_report(run).read_text(encoding="utf-8")
    cases = len(read_run(run).examples.cases)
    assert cases > 1
    assert re.findall(r"Turn case (\d+) in 3-D", page) == [str(k + 1) for k in range(cases)]
    assert volumes(page, 1)["original"] != volumes(page, 0)["original"]
    assert page.count('id="niivue-code"') == 1


def test_a_large_crop_is_thinned_out_and_keeps_its_size_in_mm():
    image = nib.Nifti1Image.from_bytes(
        gzip.decompress(viewer_module._nifti(np.zeros((200, 100, 50), np.uint8), (0.5, 1.0, 2.0)))
    )
    assert image.shape == (67, 34, 17)
    assert np.allclose(nib.affines.voxel_sizes(image.affine), (1.5, 3.0, 6.0))


def test_the_library_is_the_published_one_and_its_licence_comes_with_it():
    code = gzip.decompress(viewer_module._library())
    # npm pack @niivue/niivue@0.69.0, then sha256sum package/dist/niivue.umd.js
    assert hashlib.sha256(code).hexdigest() == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"
    licence = viewer_module.files("wavespark.report").joinpath("niivue/LICENSE").read_text()
    assert "BSD 2-Clause" in licence and "Copyright (c) 2021, Niivue" in licence


def test_the_policy_names_exactly_the_two_scripts_by_their_hashes(run):
    page = write_report(run).read_text(encoding="utf-8")
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1].replace("&#x27;", "'")
    allowed = set(re.search(r"script-src ([^;]+)", policy)[1].split())
    inline = re.search(r"<script>(.*?)</script>", page, re.DOTALL)[1].encode()
    library = gzip.decompress(base64.b64decode(re.search(r'<template id="niivue-code">([^<]+)<', page)[1]))
    assert allowed == {f"'sha256-{base64.b64encode(hashlib.sha256(t).digest()).decode()}'" for t in (inline, library)}
    assert "unsafe-eval" not in policy and "http" not in policy


def test_a_run_without_pictures_gets_no_script_at_all(run):
    shutil.rmtree(run / "examples")
    page = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in page and "<canvas" not in page and "script-src" not in page


def browse(address, tmp_path, *flags):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *flags, address]
    return subprocess.run(command, capture_output=True, timeout=170, check=True).stdout.decode()


@needs_browser
def test_a_browser_draws_the_three_volumes_from_the_file(run, tmp_path):
    picture = tmp_path / "shot.png"
    browse(f"{write_report(run).as_uri()}#3d", tmp_path, f"--screenshot={picture}", "--window-size=1400,7000")
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    # The window is taller than the page, which a browser without a screen would else scroll to the view and leave
    # unpainted. The canvases are the tallest black rows; those of the slices in the tables are half as tall.
    rows = np.flatnonzero((pixels.max(axis=2) < 6).sum(axis=1) > 350)
    canvases = max(np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1), key=len)
    assert canvases.size > 250, "the canvases were not drawn"
    band = pixels[canvases[0] : canvases[0] + 330]
    columns = np.flatnonzero((band.max(axis=2) < 6).mean(axis=0) > 0.1)
    starts = [group for group in np.split(columns, np.flatnonzero(np.diff(columns) > 5) + 1) if group.size > 20]
    left, right = columns[0], columns[-1]
    third = (right - left) // 3
    grey = [
        ((p.max(axis=2) > 60) & (np.ptp(p, axis=2) < 12)).sum()
        for p in np.split(band[:, left : left + 3 * third], 3, axis=1)
    ]
    assert starts and min(grey) > 2000, f"each of the three shows tissue: {grey}"
    assert grey[1] < 0.8 * grey[0], "the visible part has holes"
    assert grey[2] > 0.8 * grey[0], "the reconstruction is whole"


@needs_browser
def test_a_page_whose_library_was_exchanged_does_not_run_it(run, tmp_path):
    path = write_report(run)
    assert 'data-state="shown"' not in path.read_text()
    evil = base64.b64encode(gzip.compress(b"document.title = 'taken over'; globalThis.niivue = {};")).decode()
    page = re.sub(r'(<template id="niivue-code">)[^<]+', rf"\g<1>{evil}", path.read_text(encoding="utf-8"))
    path.write_text(page, encoding="utf-8")
    dom = browse(f"{path.as_uri()}#3d", tmp_path, "--dump-dom")
    assert "taken over" not in dom.split("</title>")[0]
    assert 'data-state="failed"' in dom and "The pictures above show the same" in dom
