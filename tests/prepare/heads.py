"""Synthetic heads, as arrays, volumes and NIfTI files."""

from pathlib import Path

import nibabel as nib
import numpy as np

from wavespark.volumes import Volume, content_hash


def head_array(shape: tuple[int, int, int] = (48, 56, 44), modality: str = "MR", seed: int = 0) -> np.ndarray:
    """A skull with textured brain in air; CT in HU with a table under it. float32."""
    rng = np.random.default_rng(seed)
    grid = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    radius = np.sqrt(sum((g / r) ** 2 for g, r in zip(grid, (0.7, 0.75, 0.8), strict=True)))
    texture = rng.normal(size=shape)
    if modality == "CT":
        out = np.full(shape, -1000.0) + 5 * texture
        out[:, 1:3, :] = 150.0  # a table, behind
        out[radius < 1] = 900
        out[radius < 0.9] = 35
        out += (radius < 0.9) * 4 * texture
    else:
        out = 4 * np.abs(texture)
        out[radius < 1] = 90
        out[radius < 0.9] = 200
        out += (radius < 1) * 12 * texture
    return np.rint(out).astype(np.float32)


def as_volume(voxels: np.ndarray, affine: np.ndarray, modality: str = "MR", **more: object) -> Volume:
    """A volume as the reader gives it."""
    names = {"id": "v1", "patient": "p1", "content": content_hash(voxels[None], affine), "contrast": None} | more
    return Volume(voxels=voxels[None], affine=np.asarray(affine, float), modality=modality, **names)


def write_head(path: Path, seed: int, modality: str = "MR", affine: np.ndarray | None = None) -> Path:
    """A small head as int16 NIfTI."""
    path.parent.mkdir(parents=True, exist_ok=True)
    array = head_array((24, 28, 22), modality, seed).astype(np.int16)
    nib.save(nib.Nifti1Image(array, np.diag([4, 4, 4, 1]) if affine is None else affine), path)
    return path


def same_files(a: Path, b: Path) -> bool:
    """Equal names and bytes below two folders, but for what is private."""

    def listing(root: Path) -> dict[str, bytes]:
        files = (p for p in root.rglob("*") if p.is_file() and "private" not in p.parts)
        return {str(p.relative_to(root)): p.read_bytes() for p in files}

    return listing(a) == listing(b)
