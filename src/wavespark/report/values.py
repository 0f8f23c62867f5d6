"""Values out of a mapping that may hold anything."""

import math
from collections.abc import Mapping
from typing import Any


def finite(mapping: Mapping[str, Any], key: str) -> float | None:
    """The finite number under `key`, or `None`."""
    value = mapping.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        value = float(value)
    except OverflowError:
        return None
    return value if math.isfinite(value) else None


def mapping(of: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping under `key`, or an empty one."""
    value = of.get(key)
    return value if isinstance(value, dict) else {}


def sequence(of: Mapping[str, Any], key: str) -> list[Any]:
    """The list under `key`, or an empty one."""
    value = of.get(key)
    return value if isinstance(value, list) else []
