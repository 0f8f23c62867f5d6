"""`wavespark doctor`: does this machine work, and what to type where it does not."""

import sys
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, say


def command(
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Versions, import health, and self-tests: no leak, exact masks, a small model that learns. Exit code 1 if anything fails."""
    from dataclasses import asdict

    from wavespark.doctor import examine, self_tests

    environment = examine()
    if not json:
        say("Environment")
        _table(environment)
        say("Self-tests (about 20 s)")
    tests = self_tests()
    failed = [c for c in (*environment, *tests) if not c.ok]
    if json:
        emit_json(
            {
                "ok": not failed,
                "environment": [asdict(c) for c in environment],
                "self_tests": [asdict(c) for c in tests],
            }
        )
    else:
        _table(tests)
        for check in failed:
            say(f"{check.name}: {check.remedy}")
        say("Everything works." if not failed else f"{len(failed)} check(s) failed.")
    if failed:
        sys.exit(1)


def _table(checks: list) -> None:
    for check in checks:
        seconds = f"  {check.seconds:.1f} s" if check.seconds else ""
        say(
            f"  {'ok  ' if check.ok else 'FAIL'}  {check.name:<26} {check.found}  (expected: {check.expected}){seconds}"
        )
