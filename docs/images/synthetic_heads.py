"""Remakes the pictures of synthetic heads in this folder: `python docs/images/synthetic_heads.py` (extra `report`)."""

from pathlib import Path

import numpy as np
from PIL import Image

from wavespark.samples import Aneurysm, synthetic_head

HERE = Path(__file__).parent
WINDOWS = {"CTA": ((-60, 240), (-300, 1700)), "TOF-MRA": ((0, 420),), "T1": ((0, 560),), "T2": ((0, 640),)}


def grey(plane_DH: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """A slice as radiologists look at it: the patient's right on the left, front (or top) up."""
    low, high = window
    return np.clip((plane_DH.T[::-1, ::-1] - low) / (high - low), 0, 1)


def save(name: str, rows: list[list[np.ndarray]]) -> None:
    height = max(tile.shape[0] for row in rows for tile in row)
    width = max(tile.shape[1] for row in rows for tile in row)
    tiles = [[np.pad(t, ((0, height - t.shape[0]), (0, width - t.shape[1]))) for t in row] for row in rows]
    Image.fromarray((np.block(tiles) * 255).astype(np.uint8)).save(HERE / name, optimize=True)


def main() -> None:
    """Four contrasts of one head; its vessels; one aneurysm with and without."""
    whole = {"shape": (120, 154, 140), "spacing": (1.5, 1.5, 1.5)}
    rows = []
    for contrast, windows in WINDOWS.items():
        voxels = synthetic_head(8, contrast, **whole).voxels
        for window in windows:
            axial = [grey(voxels[:, :, k], window) for k in (22, 38, 50, 60, 78, 94)]
            rows.append([*axial, grey(voxels[:, 80], window), grey(voxels[61], window)])
    save("synthetic_heads.png", rows)

    head = synthetic_head(
        8,
        "TOF-MRA",
        shape=(200, 220, 150),
        spacing=(0.8,) * 3,
        aneurysm=Aneurysm("Middle Cerebral Artery", "Left", 6.0),
    )
    window = (90, 480)
    save(
        "synthetic_vessels.png",
        [[grey(head.voxels[:, :, 30:].max(2), window), grey(head.voxels[:, 40:160].max(1), window)]],
    )

    zoom = {"shape": (84, 96, 24), "spacing": (0.6, 0.6, 1.0)}
    rows = []
    for contrast, window in (("CTA", (-60, 400)), ("TOF-MRA", (0, 520)), ("T2", (0, 640))):
        without, with_sac = (
            synthetic_head(8, contrast, aneurysm=a, **zoom)
            for a in (None, Aneurysm("Anterior Communicating Artery", None, 6.0))
        )
        k = int(np.rint((with_sac.sac[0][2] - with_sac.affine[2, 3]) / with_sac.spacing[2]))
        pair = [grey(h.voxels[:, :, k], window) for h in (without, with_sac)]
        rows.append([np.kron(t, np.ones((3, 3))) for t in (*pair, np.abs(pair[1] - pair[0]))])
    save("synthetic_pair.png", rows)


if __name__ == "__main__":
    main()
