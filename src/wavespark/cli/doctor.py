"""`wavespark doctor`: does this machine work, and what to type where it does not."""

import sys
from typing import Annotated, Any

import typer

from wavespark.cli.console import emit_json, say


def command(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Versions, import health, the seven sparse tests on every engine, and self-tests: no leak, exact masks, a small model
    that learns. Exit code 1 if anything fails.
    """
    from dataclasses import asdict

    from wavespark.doctor import examine, self_tests, sparse_suite

    sections = {
        "environment": ("Environment", examine),
        "sparse": ("Sparse operations, against dense ones", lambda: [_as_check(c) for c in sparse_suite()]),
        "self_tests": ("Self-tests (up to 20 s)", self_tests),
    }
    done: dict[str, list[Any]] = {}
    for name, (title, run) in sections.items():
        if not json:
            say(title)
        done[name] = run()
        if not json:
            _table(done[name])
    failed = [c for checks in done.values() for c in checks if not c.ok]
    if json:
        emit_json({"ok": not failed} | {name: [asdict(c) for c in checks] for name, checks in done.items()})
    else:
        for check in failed:
            say(f"{check.name}: {check.remedy}")
        say("Everything works." if not failed else f"{len(failed)} check(s) failed.")
    if failed:
        sys.exit(1)


def _as_check(c: Any) -> Any:
    from wavespark.doctor import Check

    memory = "" if c.peak_mb is None else f", {c.peak_mb:.0f} MB"
    return Check(
        name=f"{c.engine}: {c.test}",
        expected="passes",
        found=f"{'failed: ' if c.status == 'failed' else ''}{c.detail}{memory}",
        ok=c.status != "failed",
        remedy="report it, with the output of `wavespark doctor --json`",
        seconds=round(c.seconds, 2),
    )


def _table(checks: list[Any]) -> None:
    for check in checks:
        seconds = f"  {check.seconds:.1f} s" if check.seconds else ""
        say(f"  {'ok  ' if check.ok else 'FAIL'}  {check.name:<30} {check.found}  (expected: {check.expected}){seconds}")
