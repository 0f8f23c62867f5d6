"""Public names of a package that are imported when they are first used.

A package's `__init__.py` lists its public names as ordinary imports under `if TYPE_CHECKING:`, where editors and type
checkers find them, and calls `lazy_exports`. Importing the package then loads none of its modules: a command line can
refuse a wrong argument without waiting for torch.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Build `__getattr__` and `__dir__` of a package from the imports in its `if TYPE_CHECKING:` block.

    A public name must differ from every submodule's name: an imported submodule would hide it.

    Example:
        if TYPE_CHECKING:
            from wavespark.models.catalogue import create_model

        __all__ = ["create_model"]
        __getattr__, __dir__ = lazy_exports(__name__)
    """
    module = sys.modules[package]
    home_of = _type_checking_imports(module.__spec__.loader.get_source(package))  # type: ignore[union-attr]

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(home_of[name]), name)
        setattr(module, name, value)  # the next use is an ordinary attribute
        return value

    return get, lambda: sorted({*vars(module), *home_of})


def _type_checking_imports(source: str) -> dict[str, str]:
    """{public name: module} of the `from ... import` lines under `if TYPE_CHECKING:`."""
    blocks = [
        n.body for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    lines = [n for block in blocks for n in block if isinstance(n, ast.ImportFrom)]
    return {alias.name: line.module or "" for line in lines for alias in line.names}
