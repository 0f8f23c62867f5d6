"""Public names of a package that are imported when they are first used.

A package's `__init__.py` lists its public names as ordinary imports under `if TYPE_CHECKING:`,
where editors and type checkers find them, and calls `lazy_exports`. Importing the package then
loads none of its modules: a command line can refuse a wrong argument without waiting for torch.
"""

import ast
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy_exports(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Build `__getattr__` and `__dir__` of a package from the imports in its `if TYPE_CHECKING:`
    block.

    A public name must differ from every submodule's name, because an imported submodule hides it;
    where both must have one name, `callable_package` makes the submodule serve as the function.

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
        home, original = home_of[name]
        value = getattr(import_module(home), original)
        if f"{package}.{name}" in sys.modules:  # importing it has made it an attribute already
            return sys.modules[f"{package}.{name}"]
        setattr(module, name, value)  # the next use is an ordinary attribute
        return value

    return get, lambda: sorted({*vars(module), *home_of})


def callable_package(package: str, function: str) -> None:
    """Make a package callable as one of its functions.

    `wavespark.prepare` is a package, and `wavespark.prepare(...)` prepares.
    """

    class CallablePackage(ModuleType):
        __doc__ = sys.modules[package].__doc__

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return getattr(self, function)(*args, **kwargs)

    sys.modules[package].__class__ = CallablePackage


def _type_checking_imports(source: str) -> dict[str, tuple[str, str]]:
    """Return {public name: (module, name there)} of the `from ... import` lines under `if
    TYPE_CHECKING:`."""
    blocks = [
        n.body for n in ast.parse(source).body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    lines = [n for block in blocks for n in block if isinstance(n, ast.ImportFrom)]
    return {alias.asname or alias.name: (line.module or "", alias.name) for line in lines for alias in line.names}
