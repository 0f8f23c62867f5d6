"""Proof that this machine works.

Importing the package loads neither torch nor anything that may be broken.
"""

from typing import TYPE_CHECKING

from wavespark.lazy import lazy_exports

if TYPE_CHECKING:
    from wavespark.doctor.check import Check, State
    from wavespark.doctor.environment import examine, loads
    from wavespark.doctor.messages import Meaning, recognise
    from wavespark.doctor.profiles import Profile, profile
    from wavespark.doctor.selftest import self_tests
    from wavespark.doctor.sparse_lines import sparse_checks
    from wavespark.doctor.summary import components, summary_lines

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

__getattr__, __dir__ = lazy_exports(__name__)
