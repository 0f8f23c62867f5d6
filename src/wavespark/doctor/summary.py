"""Closing lines: the state of each part of the system on this machine."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from wavespark.doctor.check import Check, State

NAMES = (
    "environment",
    "sparse engine torch",
    "sparse engine spconv",
    "sparse engine minkowski",
    "masks",
    "WaveFormer",
    "SparK",
    "losses",
    "data path",
    "training",
    "export",
)
_TOLD = MappingProxyType(
    {"works": "works", "warning": "works, see the notes", "not installed": "not installed", "fails": "FAILS"}
)


def components(checks: Iterable[Check]) -> dict[str, State]:
    """The state of every component: it fails if one of its checks does; an engine that was not
    tested is not installed."""
    states: dict[str, set[State]] = {name: set() for name in NAMES}
    for check in checks:
        states.setdefault(check.component, set()).add(check.state)
    return {name: _worst(found) for name, found in states.items()}


def _worst(found: set[State]) -> State:
    if not found:
        return "not installed"
    if "fails" in found:
        return "fails"
    if "warning" in found:
        return "warning"
    # An optional package that is not there does not make its component so, if anything of it works.
    return "works" if "works" in found else "not installed"


def summary_lines(states: Mapping[str, State]) -> list[str]:
    """Return a line for each component."""
    width = max(map(len, states))
    return [f"{name:<{width}}  {_TOLD[state]}" for name, state in states.items()]
