"""Packs golden cases of MinkowskiEngine into the one file that the tests read.

    python tests/goldens/pack_minkowski.py FOLDER_OF_GOLDENS

Takes the cases on 7^dim grids and those with few sites; the test reads the other cases from the folder itself when it
is there.
"""

import json
import sys
from pathlib import Path

import numpy as np


def pack(source: Path, target: Path) -> int:
    """Writes `target`; returns the number of cases."""
    known: dict[bytes, tuple[int, list[int]]] = {}
    floats: list[np.ndarray] = []
    sites: list[np.ndarray] = []
    cases = []
    for case in json.loads((source / "index.json").read_text()):
        if case["size"] != 7 and "few" not in case["file"]:
            continue
        arrays = {}
        with np.load(source / case["file"]) as golden:
            for name in golden.files:
                array = golden[name]
                if name == "out_stride":
                    case[name] = array.tolist()
                    continue
                into = sites if "sites" in name else floats
                key = array.tobytes() + repr((array.dtype.str, array.shape)).encode()
                if key not in known:
                    known[key] = (sum(a.size for a in into), list(array.shape))
                    into.append(array.ravel())
                arrays[name] = known[key]
        cases.append({**case, "arrays": arrays})
    np.savez_compressed(
        target,
        cases=np.array(json.dumps(cases)),
        floats=np.concatenate(floats),
        sites=np.concatenate(sites).astype(np.uint8),
    )
    return len(cases)


if __name__ == "__main__":
    print(pack(Path(sys.argv[1]), Path(__file__).with_name("minkowski-0.5.4.npz")), "cases")
