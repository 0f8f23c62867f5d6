"""Settings from a TOML file (or the name of a recipe that comes with the package) and `key=value` words, and back to TOML."""

import json
import tomllib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from wavespark.config.pretrain import PretrainSettings
from wavespark.errors import SettingsError
from wavespark.settings import build, override


def pretraining_recipes() -> list[str]:
    """Names of the pre-training recipes that come with the package."""
    return sorted(
        p.name.removesuffix(".toml")
        for p in files("wavespark").joinpath("recipes").iterdir()
        if p.name.endswith(".toml") and "[run]" in p.read_text(encoding="utf-8")
    )


def load_pretraining(name_or_path: str | Path, overrides: Sequence[str] = ()) -> PretrainSettings:
    """The settings of a recipe with words laid over it.

    Raises:
        SettingsError: if there is no such recipe or file, it is no TOML, or a key or value is not possible; all mistakes at once.
    """
    text, origin = _text(name_or_path)
    try:
        document = tomllib.loads(text)
    except ValueError as error:  # TOMLDecodeError, and what int says of a number of thousands of digits
        raise SettingsError(f"{origin} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{origin} is nested too deeply for settings") from None
    return build(PretrainSettings, override(document, overrides), origin)


def _text(name_or_path: str | Path) -> tuple[str, str]:
    name = str(name_or_path)
    path = Path(name_or_path)
    if name.removesuffix(".toml") in pretraining_recipes() and not path.is_file():
        name = name.removesuffix(".toml")
        return files("wavespark").joinpath("recipes", f"{name}.toml").read_text(encoding="utf-8"), f"recipe {name}"
    try:
        return path.read_text(encoding="utf-8"), path.name
    except (OSError, UnicodeDecodeError):
        raise SettingsError(
            f"there is no recipe or readable file {name!r}; recipes that come with the package: {', '.join(pretraining_recipes())}"
        ) from None


def to_toml(document: Mapping[str, Any]) -> str:
    """Nested settings as TOML: tables of numbers, strings, booleans, lists and flat maps."""
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
