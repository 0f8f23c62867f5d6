"""The plan of the house is true: every file that it names stands, and every file that stands is named."""

import re
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src/wavespark"


def expanded(name: str) -> list[str]:
    """`a_{b,c}.py` as `a_b.py` and `a_c.py`."""
    match = re.search(r"\{([^}]*)\}", name)
    return (
        [name]
        if match is None
        else [e for part in match[1].split(",") for e in expanded(name[: match.start()] + part + name[match.end() :])]
    )


def plan() -> dict[str, list[str]]:
    """The patterns of file names that the plan gives each room."""
    text = (ROOT / "docs/design/ARCHITECTURE.md").read_text(encoding="utf-8")
    block = text.split("src/wavespark/ ")[1].split("\ntests/ ")[0]
    rooms: dict[str, list[str]] = {}
    room = ""
    for line in block.splitlines()[1:]:
        named = re.match(r"  (> )?(\w+)/ ", line)
        if named:
            room = named[2]
        if re.match(r"  \w+\.py", line):
            room = ""
        there = line.split("> ")[0] if not named or not named[1] else ""
        rooms.setdefault(room, []).extend(e for word in re.findall(r"[\w/{},*]+\.py", there) for e in expanded(word))
    return rooms


def test_what_the_plan_names_stands() -> None:
    gone = [
        f"{room}/{name}"
        for room, names in plan().items()
        if room != "cli"
        for name in names
        if not list((SOURCE / room).glob(name))
    ]
    assert not gone


def test_what_stands_is_in_the_plan() -> None:
    rooms = plan()
    missing = []
    for path in SOURCE.rglob("*.py"):
        room, _, inner = str(path.relative_to(SOURCE)).partition("/")
        if not inner or room == "cli" or path.name == "__init__.py":
            continue
        if not any(fnmatch(inner, pattern) for pattern in rooms.get(room, [])):
            missing.append(f"{room}/{inner}")
    assert not missing


def test_the_reader_of_the_plan_notices_both() -> None:
    assert expanded("dicom_{file,header}.py") == ["dicom_file.py", "dicom_header.py"]
    assert "cells/forms/halo.py" in plan()["sparse"]
    assert "voxels/engines/torch.py" in plan()["sparse"]
    assert not list((SOURCE / "sparse").glob("no_such_*.py"))
