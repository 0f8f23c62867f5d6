"""Promise S3: readers given damaged files raise nothing but our own errors. Coverage-guided: what reaches a new line of the package is changed further.

    python benchmarks/fuzz.py --minutes 60 --output benchmarks/results/fuzz.json
    python benchmarks/fuzz.py --minutes 0.5 --targets nifti checkpoint

What fails is kept in --keep (a folder) and named in the result; the exit code is 1 then.
"""

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch

import wavespark as ws
from wavespark.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from wavespark.checkpoints.format import MANIFEST, manifest
from wavespark.errors import WavesparkError
from wavespark.prepare import prepare
from wavespark.samples import write_collection

PACKAGE = str(Path(ws.__file__).parent)
MAX_BYTES = 2**20
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\x00\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"-1",
    b"1e999",
    b"[",
    b'{"',
    b"null",
    b"../",
)


class Target:
    """A reader, with good files to begin with.

    Args:
        name: of the target.
        read: is given a file's content and a folder for it, and must raise nothing but `WavesparkError`.
        seeds: good contents.
    """

    def __init__(self, name: str, read: Callable[[bytes, Path], None], seeds: list[bytes]) -> None:
        self.name, self.read = name, read
        self.corpus = [s for s in seeds if len(s) <= MAX_BYTES]
        self.lines: set[tuple[str, int]] = set()
        self.runs, self.failures = 0, {}

    def once(self, rng: random.Random, folder: Path, keep: Path) -> None:
        """One changed file."""
        content = (
            changed(rng.choice(self.corpus), rng, self.corpus)
            if self.runs >= len(self.corpus)
            else self.corpus[self.runs]
        )
        self.runs += 1
        reached, failure = traced(lambda: self.read(content, folder))
        if failure:
            if failure not in self.failures:
                keep.mkdir(parents=True, exist_ok=True)
                name = f"{self.name}-{hashlib.sha256(content).hexdigest()[:12]}"
                (keep / name).write_bytes(content)
                self.failures[failure] = name
        elif reached - self.lines:
            self.corpus.append(content)
        self.lines |= reached


def traced(work: Callable[[], None]) -> tuple[set[tuple[str, int]], str]:
    """The lines of the package that the work reached, and where it failed with anything but our own error."""
    reached: set[tuple[str, int]] = set()

    def lines(frame, event, argument):
        reached.add((frame.f_code.co_filename, frame.f_lineno))
        return lines

    def calls(frame, event, argument):
        return lines if frame.f_code.co_filename.startswith(PACKAGE) else None

    sys.settrace(calls)
    try:
        work()
    except (WavesparkError, KeyboardInterrupt):
        pass
    except BaseException as error:
        place = error.__traceback__
        while place.tb_next is not None:
            place = place.tb_next
        return reached, f"{type(error).__name__} at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}"
    finally:
        sys.settrace(None)
    return reached, ""


def changed(content: bytes, rng: random.Random, others: list[bytes]) -> bytes:
    """Some bytes flipped, put in, taken out, repeated, or taken from another file."""
    new = bytearray(content)
    # Most of what a reader decides is decided near the start.
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        size = len(new)
        at = rng.randrange(min(size, 512) if rng.random() < 0.6 else size) if size else 0
        kind = rng.randrange(6)
        if kind == 0 and size:
            new[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            word = rng.choice(INTERESTING)
            new[at : at + len(word)] = word
        elif kind == 2:
            new[at:at] = rng.choice(INTERESTING)
        elif kind == 3:
            del new[at : at + rng.choice((1, 4, 64, 4096, size))]
        elif kind == 4:
            new[at:at] = new[at : at + rng.choice((1, 16, 256))]
        else:
            other = rng.choice(others)
            new[at : at + 64] = other[at : at + 64]
    return bytes(new[:MAX_BYTES])


def file_reader(name: str) -> Callable[[bytes, Path], None]:
    def read(content: bytes, folder: Path) -> None:
        (folder / name).write_bytes(content)
        for volume in ws.read_volumes(folder / name).volumes:
            np.isfinite(volume.voxels).all()

    return read


def make_targets(scratch: Path) -> list[Target]:
    """NIfTI, DICOM, the manifest of a store, checkpoints, encoders."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 900, (12, 14, 10)).astype(np.int16)
    seeds = []
    for kind, name in ((nib.Nifti1Image, "a.nii"), (nib.Nifti2Image, "b.nii")):
        nib.save(kind(voxels, np.eye(4)), scratch / name)
        seeds.append((scratch / name).read_bytes())
    write_collection(scratch / "heads", 1)
    slices = (
        sorted((scratch / "heads").rglob("*.dcm"))[:2] or [p for p in (scratch / "heads").rglob("*") if p.is_file()][:2]
    )

    (scratch / "data").mkdir()
    head = np.zeros((40, 48, 40), np.int16)
    head[8:32, 8:40, 8:32] = rng.integers(200, 900, (24, 32, 24))
    nib.save(nib.Nifti1Image(head, np.eye(4)), scratch / "data" / "sub-1_T1w.nii.gz")
    prepare(scratch / "data", scratch / "store")
    line = (scratch / "store/manifest.jsonl").read_bytes()

    def store(content: bytes, folder: Path) -> None:
        (scratch / "store/manifest.jsonl").write_bytes(content)
        for volume in ws.open_store(scratch / "store"):
            volume.read()

    made = Checkpoint(step=3, model={"a": torch.ones(3)}, optimizer={"a.step": torch.ones(())}, state={"x": [1, None]})
    place = write_checkpoint(scratch / "checkpoints", made)
    files = {p.name: p.read_bytes() for p in place.iterdir()}

    def part(name: str) -> Callable[[bytes, Path], None]:
        def read(content: bytes, folder: Path) -> None:
            new = files | {name: content}
            if name != MANIFEST:
                new[MANIFEST] = manifest({k: v for k, v in new.items() if k != MANIFEST})
            for each, data in new.items():
                (place / each).write_bytes(data)
            read_checkpoint(place)

        return read

    def encoder(content: bytes, folder: Path) -> None:
        (folder / "e.safetensors").write_bytes(content)
        ws.load_encoder(folder / "e.safetensors")

    return [
        Target("nifti", file_reader("f.nii"), seeds),
        Target("dicom", file_reader("f.dcm"), [p.read_bytes() for p in slices]),
        Target("manifest", store, [line]),
        *(Target(f"checkpoint {name}", part(name), [files[name]]) for name in sorted(files)),
        Target("encoder", encoder, [files["model.safetensors"]]),
    ]


def main() -> None:
    """Runs for the time that was asked for, the targets in turn."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--targets", nargs="*", default=[], help="names, or the beginning of names")
    options.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    options.add_argument("--output", type=Path)
    chosen = options.parse_args()
    warnings.simplefilter("ignore")
    rng = random.Random(chosen.seed)
    scratch = Path(tempfile.mkdtemp())
    try:
        targets = [t for t in make_targets(scratch) if not chosen.targets or t.name.startswith(tuple(chosen.targets))]
        folder = scratch / "files"
        folder.mkdir()
        until = time.monotonic() + 60 * chosen.minutes
        while time.monotonic() < until:
            for target in targets:
                target.once(rng, folder, chosen.keep)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    document = {
        "what": "readers given changed files: what they raise beside our own errors",
        "command": f"python benchmarks/fuzz.py --minutes {chosen.minutes:g} --seed {chosen.seed}",
        "targets": {
            t.name: {"runs": t.runs, "kept": len(t.corpus), "lines": len(t.lines), "failures": t.failures}
            for t in targets
        },
    }
    text = json.dumps(document, indent=2)
    print(text)
    if chosen.output:
        chosen.output.write_text(text + "\n", encoding="utf-8")
    sys.exit(any(t.failures for t in targets))


if __name__ == "__main__":
    main()
