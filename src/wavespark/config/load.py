"""Settings of a run from a TOML file or a configuration that comes with the package, `key=value`
words, and back to TOML."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from wavespark.config.pretrain import PretrainSettings
from wavespark.errors import SettingsError
from wavespark.settings import build, override

EXTENDS = "extends"
"""Key of a file that names the configuration whose settings it changes."""


def training_configs() -> list[str]:
    """Return the names of the training configurations that come with the package."""
    return sorted(p.name.removesuffix(".toml") for p in _packaged().iterdir() if p.name.endswith(".toml"))


def load_pretraining(name_or_path: str | Path, overrides: Sequence[str] = ()) -> PretrainSettings:
    """Load the settings of a pre-training run.

    A file may begin with `extends = "NAME"`, a configuration of the package or a path relative to
    the file: what it does not set is taken from there.

    Args:
        name_or_path: name of a configuration that comes with the package, or a TOML file.
        overrides: words `key=value` that replace settings of the file.

    Returns:
        Checked settings.

    Raises:
        SettingsError: if there is no such configuration or file, it is not TOML, or a key or value
            is not possible; all mistakes at once.
    """
    document, origin = read_config(name_or_path)
    return build(PretrainSettings, override(document, overrides), origin)


def read_config(name_or_path: str | Path) -> tuple[dict[str, Any], str]:
    """Read a configuration with everything that it extends.

    Returns:
        The settings as nested tables, and what to call the configuration in messages.

    Raises:
        SettingsError: as `load_pretraining`.
    """
    return _extended(name_or_path, Path(), ())


def _extended(name_or_path: str | Path, folder: Path, chain: tuple[str, ...]) -> tuple[dict[str, Any], str]:
    text, origin, place = _text(name_or_path, folder)
    if origin in chain:
        raise SettingsError(f"{' extends '.join([*chain, origin])}: a configuration cannot extend itself")
    document = _parsed(text, origin)
    base = document.pop(EXTENDS, None)
    if base is None:
        return document, origin
    if not isinstance(base, str):
        raise SettingsError(f'{origin}: extends takes the name of a configuration or a path, e.g. extends = "tiny-cpu"')
    return merged(_extended(base, place, (*chain, origin))[0], document), origin


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested tables with changes laid over them.

    >>> merged({"run": {"steps": 1, "seed": 0}}, {"run": {"steps": 2}})
    {'run': {'steps': 2, 'seed': 0}}
    """
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


def _parsed(text: str, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what int says of a number of thousands of digits
        raise SettingsError(f"{origin} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{origin} is nested too deeply for settings") from None


def _packaged() -> Any:
    return files("wavespark").joinpath("configs")


def _text(name_or_path: str | Path, folder: Path) -> tuple[str, str, Path]:
    """Return the text of a configuration, its name in messages and the folder that paths in it
    start from."""
    name, path = str(name_or_path), folder / name_or_path
    if name.removesuffix(".toml") in training_configs() and not path.is_file():
        name = name.removesuffix(".toml")
        return _packaged().joinpath(f"{name}.toml").read_text(encoding="utf-8"), f"config {name}", Path()
    try:
        return path.read_text(encoding="utf-8"), path.name, path.parent
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            f"there is no configuration or readable file {name!r}; configurations that come with the package: "
            f"{', '.join(training_configs())}"
        ) from None


def to_toml(document: Mapping[str, Any]) -> str:
    """Write nested settings as TOML: tables of numbers, strings, booleans, lists and flat maps."""
    lines: list[str] = []
    for key, value in document.items():
        if not isinstance(value, Mapping):
            lines.append(f"{key} = {_value(value)}")
    for key, value in document.items():
        if isinstance(value, Mapping):
            lines += ["", f"[{key}]", *(f"{k} = {_value(v)}" for k, v in value.items())]
    return "\n".join(lines).strip() + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_value(k)} = {_value(v)}" for k, v in value.items()) + " }" if value else "{}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        return f"{value:.1f}"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
