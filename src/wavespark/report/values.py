"""Values out of a mapping that may hold anything."""

from collections.abc import Mapping
from typing import Any

_HUGE = 1e100
"""Beyond this nothing that a run measures can be; sums of such numbers overflow."""


def finite(mapping: Mapping[str, Any], key: str) -> float | None:
    """The number under `key`; `None` if there is none, or none that a run can have measured."""
    value = mapping.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -_HUGE < value < _HUGE else None


def mapping(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping under `key`, or an empty one."""
    value = of.get(key)
    return value if isinstance(value, dict) else {}


def sequence(of: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`, or an empty one."""
    value = of.get(key)
    return value if isinstance(value, list) else []
