"""`wavespark doctor`: does this machine work, and what to type where it does not."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from wavespark.cli.console import emit_json, note, progress, say
from wavespark.errors import ExitCode
from wavespark.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from wavespark.doctor import Check


def command(
    profile: Annotated[
        str,
        typer.Option(
            metavar="current|seed-2025-10",
            help="Package versions to check against: those of this package, or those of its predecessor (the 2025-10 system).",
        ),
    ] = "current",
    message: Annotated[
        str,
        typer.Option(
            metavar="TEXT",
            help="Explain this error message of another library and run no checks; - reads it from standard input.",
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Check this machine and name the fix for each problem.

    Checks versions, imports, GPU, memory and file limits, and DICOM decoders. Compares sparse with
    dense operations, and tests that hidden voxels do not leak, that masks are exact and that a
    small model learns. The exit code is 1 if any check fails.
    """
    if message:
        _explain(sys.stdin.read() if message == "-" else message, json)
        return
    from dataclasses import asdict

    from wavespark.doctor import components, examine, loads, summary_lines
    from wavespark.doctor import profile as profile_of

    wanted = profile_of(profile)
    done = {"environment": _section(f"Environment, profile {wanted.name}", lambda: examine(wanted), quiet=json)}
    if loads(done["environment"]):
        from wavespark.doctor import self_tests, sparse_checks

        done["sparse"] = _section("Sparse operations, against dense ones", sparse_checks, quiet=json)
        done["self_tests"] = _section("Self-tests (up to 20 s)", self_tests, quiet=json)
    elif not json:
        say("Sparse operations and self-tests are left out: what they need does not import.")
    checks = [c for part in done.values() for c in part]
    states, failed = components(checks), [c for c in checks if not c.ok]
    if json:
        parts = {name: [asdict(c) | {"state": c.state} for c in part] for name, part in done.items()}
        emit_json({"ok": not failed, "profile": wanted.name, **parts, "components": states})
    else:
        say("Components")
        for line in summary_lines(states):
            say(f"  {line}")
        _what_to_do(checks)
        say("Everything that is needed works." if not failed else f"{len(failed)} check(s) failed.")
    if failed:
        sys.exit(ExitCode.FAILED)


def _section(title: str, run: "Callable[[], Iterable[Check]]", *, quiet: bool) -> "list[Check]":
    """Run the checks of a part and print each as soon as it is done."""
    if not quiet:
        say(title)
    done = []
    with progress("doctor", quiet=quiet):
        for check in run():
            done.append(check)
            if quiet:
                continue
            seconds = f"  {check.seconds:.1f} s" if check.seconds >= 0.1 else ""
            mark = {"works": "ok", "not installed": "-", "warning": "note", "fails": "FAIL"}[check.state]
            say(printable(f"  {mark:<5} {check.name:<38} {check.found}  (expected: {check.expected}){seconds}"))
    return done


def _what_to_do(checks: "Iterable[Check]") -> None:
    for title, state in (("What to do", "fails"), ("Notes", "warning")):
        lines = [f"  {c.name}: {c.remedy}" for c in checks if c.state == state]
        if lines:
            say("\n".join([title, *(printable(line) for line in dict.fromkeys(lines))]))


def _explain(message: str, json: bool) -> None:
    from wavespark.doctor.messages import recognise

    meaning = recognise(message)
    if json:
        emit_json(
            {"known": meaning is not None} | ({"cause": meaning.cause, "remedy": meaning.remedy} if meaning else {})
        )
    elif meaning is None:
        note("This message is not known. Run `wavespark doctor` to see what does not work here.")
    else:
        say(f"{meaning.cause}.\nWhat to do: {meaning.remedy}")
    if meaning is None:
        sys.exit(ExitCode.FAILED)
