"""The engine that computes convolutions of sparse voxels: one contract, chosen by name, never
swapped silently.

`torch` is ours and always there; `spconv` and `minkowski` wrap libraries that the user installed.
An engine computes features at given sites: which sites are active is decided once, by
`Coordinates`, so all engines have the same site rules. Norms and pooling do not depend on the
engine.

The choice is the only state of the package outside its values. It is a context variable, so it
belongs to the caller's thread or task, and `with set_engine(name):` restores what was chosen
before. A bare `set_engine(name)` holds until the next one, as its name says.
"""

import importlib
import warnings
from contextvars import ContextVar, Token
from functools import cache
from types import TracebackType

from wavespark.errors import DependencyError, SettingsError
from wavespark.sparse.voxels.engines.contract import Engine

_ADVICE = {
    "torch": "",
    "spconv": "Type: pip install spconv (CPU), or the build for your CUDA version, for example spconv-cu126",
    "minkowski": "MinkowskiEngine has no wheels: build 0.5.4 from source against the installed torch",
}


class EngineMissingError(DependencyError):
    """A sparse engine whose library cannot be imported."""

    def __init__(self, name: str, why: str) -> None:
        Exception.__init__(
            self, f"the sparse engine '{name}' is not usable: {why}. {_ADVICE[name]}. Or keep the engine 'torch'"
        )


@cache
def _load(name: str) -> Engine:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what these libraries warn of at import is theirs to mend
            engine: Engine = importlib.import_module(f"wavespark.sparse.voxels.engines.{name}").load()
    except ImportError as error:
        raise EngineMissingError(
            name,
            "its library is not installed" if isinstance(error, ModuleNotFoundError) else "its library fails to load",
        ) from error
    return engine


def engines() -> tuple[str, ...]:
    """Names of the engines whose libraries can be imported here; `torch` is always the first."""
    found = []
    for name in _ADVICE:
        try:
            _load(name)
        except EngineMissingError:
            continue
        found.append(name)
    return tuple(found)


_chosen: ContextVar[str] = ContextVar("wavespark sparse engine", default="torch")


class EngineChoice:
    """An engine that was just chosen; as a context manager it restores the choice before."""

    def __init__(self, name: str, token: Token[str]) -> None:
        self.name = name
        self._token = token

    def __repr__(self) -> str:
        return f"set_engine({self.name!r})"

    def __enter__(self) -> "EngineChoice":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _chosen.reset(self._token)


def set_engine(name: str) -> EngineChoice:
    """Choose the engine of sparse convolutions for this thread or task, or for the block of `with
    set_engine(name):`.

    Raises:
        SettingsError: if the name is not known, or the engine would give wrong results on this
            machine.
        DependencyError: if its library is not installed, with what to type.
    """
    if name not in _ADVICE:
        raise SettingsError(
            f"no sparse engine is called {name!r}. Known: {', '.join(_ADVICE)}; usable here: {', '.join(engines())}"
        )
    engine = _load(name)
    refuse = getattr(engine, "refuse_machine", None)
    if refuse is not None:
        refuse()
    return EngineChoice(name, _chosen.set(name))


def current_engine() -> Engine:
    """The engine that computes sparse convolutions now."""
    return _load(_chosen.get())
