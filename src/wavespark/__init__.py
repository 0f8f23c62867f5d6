"""Visible-only masked pre-training of encoders on unlabelled 3D head CT and MR.

Importing the package loads neither torch nor a reader: each public name is fetched when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME_OF = {
    "read_volumes": "wavespark.volumes",
    "open_store": "wavespark.prepare",
    "create_model": "wavespark.models",
    "list_models": "wavespark.models",
    "load_encoder": "wavespark.engine",
}

__all__ = ["__version__", "create_model", "list_models", "load_encoder", "open_store", "read_volumes"]


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'wavespark' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
