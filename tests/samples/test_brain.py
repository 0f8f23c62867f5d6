"""The MNI152 brain is found, not downloaded."""

import subprocess
import sys

import nibabel
import numpy as np
import pytest

from wavespark.errors import DependencyError
from wavespark.samples import mni152_brain


@pytest.mark.parametrize("kind", ["t1", "gm", "wm"])
def test_the_brain_is_a_one_millimetre_volume(kind):
    image = nibabel.load(mni152_brain(kind))
    assert image.shape == (197, 233, 189)
    assert np.allclose(image.header.get_zooms(), 1.0)


def test_finding_the_brain_does_not_import_nilearn():
    code = "import sys; from wavespark.samples import mni152_brain; mni152_brain(); sys.exit('nilearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_missing_nilearn_names_the_extra_to_install(monkeypatch):
    monkeypatch.setattr("wavespark.samples.brain.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"wavespark\[samples\]"):
        mni152_brain()


def test_an_unknown_map_is_refused():
    with pytest.raises(ValueError, match="t1, gm, wm"):
        mni152_brain("csf")
