"""The English of the source: rules of docs/design/STYLE.md that a machine can check."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src/wavespark").rglob("*.py"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LONGEST_PROSE = 100
EXAMPLE = re.compile(r"\s*(>>>|\.\.\.|\|)")
"""Examples and tables are no prose."""
HEADLESS = re.compile(r"(Of|What|Whether|As)\b")
ARCHAIC = re.compile(r"\b(be it|for ever|is said|is told|want of|less the bias)\b", re.IGNORECASE)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring: of modules, classes, functions, and attributes."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for child in ast.iter_child_nodes(node):
            if (
                isinstance(child, ast.Expr)
                and isinstance(child.value, ast.Constant)
                and isinstance(child.value.value, str)
            ):
                yield child.lineno, child.value.value


def comments(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every comment."""
    for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.line.rstrip("\n")


def results(text: str, start: int) -> Iterator[int]:
    """Lines of a docstring that show the result of an example: they must stand as Python prints them."""
    example = False
    for number, line in enumerate(text.splitlines(), start):
        shown = line.lstrip().startswith((">>>", "..."))
        if example and line.strip() and not shown:
            yield number
        example = shown or (example and bool(line.strip()))


def where(path: Path, line: int) -> str:
    return f"{path.relative_to(ROOT)}:{line}"


def test_a_docstring_opens_with_a_verb_or_with_what_the_thing_is() -> None:
    headless = [where(p, line) for p in SOURCES for line, text in docstrings(p) if HEADLESS.match(text.strip())]
    assert not headless


def test_prose_in_the_source_fits_into_100_columns() -> None:
    long = []
    for path in SOURCES:
        lines = path.read_text(encoding="utf-8").splitlines()
        for start, text in docstrings(path):
            numbers = set(range(start, start + text.count("\n") + 1)) - set(results(text, start))
            long += [
                where(path, n) for n in numbers if len(lines[n - 1]) > LONGEST_PROSE and not EXAMPLE.match(lines[n - 1])
            ]
        long += [
            where(path, n) for n, line in comments(path) if len(line) > LONGEST_PROSE and line.lstrip().startswith("#")
        ]
    assert not long


def test_nobody_writes_archaisms() -> None:
    odd = [where(p, n) for p in SOURCES for n, text in docstrings(p) if ARCHAIC.search(text)]
    odd += [
        where(p, n)
        for p in PAGES
        for n, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)
        if ARCHAIC.search(line) and "design" not in p.parts and p.name != "LEDGER.md"
    ]
    assert not odd
