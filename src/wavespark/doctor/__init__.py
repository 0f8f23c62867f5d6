"""Proof that this machine works.

Importing the room loads neither torch nor anything that may be broken: each name is fetched when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavespark.doctor.check import Check, State
    from wavespark.doctor.environment import examine, loads
    from wavespark.doctor.messages import Meaning, recognise
    from wavespark.doctor.profiles import Profile, profile
    from wavespark.doctor.selftest import self_tests
    from wavespark.doctor.sparse_lines import sparse_checks
    from wavespark.doctor.summary import components, summary_lines

_HOME_OF = {
    "Check": "check",
    "State": "check",
    "components": "summary",
    "summary_lines": "summary",
    "examine": "environment",
    "loads": "environment",
    "Meaning": "messages",
    "recognise": "messages",
    "Profile": "profiles",
    "profile": "profiles",
    "self_tests": "selftest",
    "sparse_checks": "sparse_lines",
}

__all__ = [
    "Check",
    "Meaning",
    "Profile",
    "State",
    "components",
    "examine",
    "loads",
    "profile",
    "recognise",
    "self_tests",
    "sparse_checks",
    "summary_lines",
]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(f"wavespark.doctor.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module 'wavespark.doctor' has no attribute {name!r}")
