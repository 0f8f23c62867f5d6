"""The page in a real browser, from file://, without scripts and without a network."""

import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from wavespark.report import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage", "--hide-scrollbars"),
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")


def browse(page, profile, *flags):
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode()


def shot(page, tmp_path, *flags):
    picture = tmp_path / "shot.png"
    browse(page, tmp_path / "profile", f"--screenshot={picture}", *flags)
    with Image.open(picture) as image:
        return np.asarray(image.convert("RGB"), dtype=float)


def share_like(pixels, like):
    return (np.abs(pixels - np.array(like)).max(axis=2) < 12).mean()


def test_the_document_that_the_browser_builds_has_the_headings_and_the_pictures(run, tmp_path):
    dom = browse(write_report(run), tmp_path / "profile", "--dump-dom")
    for heading in ("Yes, it learned.", "Reconstructions", "Curves", "What was refused", "What this does not show"):
        assert heading in dom
    assert dom.count("<img") == 3 + 2 * 3 * 7 and dom.count("<svg") == 7


def test_the_page_shows_its_pictures_and_curves(run, tmp_path):
    pixels = shot(write_report(run), tmp_path, "--window-size=1400,3200")
    blue = np.abs(pixels - np.array([92, 116, 158])).max(axis=2) < 4
    rows = np.flatnonzero(blue.sum(axis=1) > 40)
    assert rows.size > 300, "the hidden cells of the panels are on the page"
    panels = pixels[rows[-1] - 300 : rows[-1]]
    assert panels.std() > 40, "the panels are not blank"
    line = np.abs(pixels[rows[-1] :] - np.array([201, 106, 0])).max(axis=2) < 30
    assert line.sum() > 500, "the held-out curve is drawn below the panels"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_follows_the_light_that_the_reader_prefers(run, tmp_path, dark):
    pixels = shot(
        write_report(run),
        tmp_path,
        "--window-size=1400,900",
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
    )
    assert share_like(pixels, (20, 23, 27) if dark else (251, 250, 247)) > 0.4


def test_nothing_sticks_out_on_a_phone(run, tmp_path):
    page = write_report(run)
    # Chromium opens no window narrower than 500 px, so the page is put into a frame of a phone's width.
    frame = tmp_path / "phone.html"
    frame.write_text(
        f'<body style="margin:0"><iframe src="{page.as_uri()}" style="width:360px;height:3000px;border:0"></iframe>'
    )
    pixels = shot(frame, tmp_path, "--window-size=500,3000")
    paper = np.abs(pixels[:, 345:360] - np.array([251, 250, 247])).max(axis=2) < 12
    assert paper.mean() > 0.97, "the right margin of a phone stays empty"
    assert pixels[:, :345].std() > 20
