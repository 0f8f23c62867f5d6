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


_CT_WINDOWS = ("brain window", "blood window", "bone window")
"""Windows of CT in the order in which the preparation recipes store them."""


def channel_name(modality: str, channels: int, channel: int) -> str:
    """Return the name of a channel for people: of CT with three channels, its window.

    >>> channel_name("CT", 3, 2), channel_name("MR", 2, 0)
    ('bone window', 'channel 1')
    """
    if modality == "CT" and channels == len(_CT_WINDOWS):
        return _CT_WINDOWS[channel]
    return f"channel {channel + 1}"
