"""Two proofs that go through files: what is prepared is what was read, and what is exported is what
was trained."""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from wavespark.engine import load_encoder
from wavespark.engine.encoders.load import export_run
from wavespark.models import create_model
from wavespark.prepare import open_store, prepare


def data_path() -> tuple[str, str, bool]:
    """A NIfTI file stored left to right comes out of the store right to left, voxel for voxel."""
    import nibabel

    voxels = np.arange(24 * 20 * 16, dtype=np.float32).reshape(24, 20, 16)
    with TemporaryDirectory(prefix="wavespark-doctor-") as folder:
        source, store = Path(folder, "source"), Path(folder, "store")
        source.mkdir()
        image = nibabel.Nifti1Image(voxels, np.diag([-1.0, 1.0, 2.0, 1.0]))
        nibabel.save(image, source / "MR_volume.nii.gz")
        report = prepare(source, store, "native")
        opened = open_store(store)
        if len(opened) != 1:
            return "1 volume, exact", f"{len(opened)} volume(s), {report.refused} refused", False
        read = opened[0].read()
    wrong = read.shape != (1, 24, 20, 16) or int((read[0] != voxels[::-1]).sum())
    return "1 volume, exact", f"1 volume, {'exact' if not wrong else 'other voxels'}", not wrong


def export() -> tuple[str, str, bool]:
    """The encoder that is loaded gives the same features, to the bit."""
    encoder = create_model("waveformer_tiny", in_channels=1).eval()
    crop = torch.randn(1, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
    provenance = {"steps": 0, "volumes": 0, "normalised_loss": None}
    with TemporaryDirectory(prefix="wavespark-doctor-") as folder, torch.no_grad():
        path = Path(folder, "encoder")
        preparation = {"name": "native", "fingerprint": "none"}
        export_run(path, encoder, name="waveformer_tiny", preparation=preparation, provenance=provenance)
        levels = load_encoder(path)(crop)
        changed = sum(int((a != b).sum()) for a, b in zip(encoder(crop), levels, strict=True))
    return "0 features changed", f"{changed} features changed", changed == 0
