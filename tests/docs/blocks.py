"""The commands that the documents tell people to type."""

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if "design" not in p.parts)])


def bash_lines(page: Path) -> list[str]:
    """Lines of the ```bash blocks, continuations joined, comments cut off."""
    text = page.read_text(encoding="utf-8")
    blocks = [
        re.sub(r"(?m)^ {4}", "", b) for b in re.findall(r"^ *```bash\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("  #")[0].strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def wavespark_words(line: str) -> list[str] | None:
    """The words after `wavespark` (or after `-m wavespark`), without redirections; None if it is another command."""
    for part in re.split(r"&&|;", line):
        words = shlex.split(part.split(" > ")[0])
        if "torchrun" in words[:1] and "wavespark" in words:
            return words[words.index("wavespark") + 1 :]
        if words and words[0] in {"wavespark", ".venv/bin/wavespark"}:
            return words[1:]
    return None
