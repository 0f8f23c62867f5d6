"""Typed settings from TOML and `a.b=value` words: closed, all mistakes at once, unknown keys with
the nearest known."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from wavespark.errors import SettingsError
from wavespark.text import did_you_mean


class Settings(BaseModel):
    """Frozen settings that know all their keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False, validate_default=True, allow_inf_nan=False)


S = TypeVar("S", bound=Settings)


def known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a settings class, dotted: `foreground.margin_mm`."""
    keys = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            keys += known_keys(kind, f"{prefix}{name}.")
        elif is_dataclass(kind):
            keys += [f"{prefix}{name}.{f.name}" for f in fields(kind)]
        else:
            keys.append(prefix + name)
    return keys


def build(model: type[S], document: Mapping[str, Any], origin: str) -> S:
    """The settings that a document gives.

    Raises:
        SettingsError: naming every unknown key (with the nearest known one) and every impossible
            value.
    """
    try:
        return model.model_validate(document)
    except ValidationError as error:
        known = known_keys(model)
        sentences = []
        for problem in error.errors(include_url=False, include_input=False, include_context=False):
            key = ".".join(str(part) for part in problem["loc"])
            if problem["type"] in {"extra_forbidden", "unexpected_keyword_argument"}:
                sentences.append(f"unknown setting {key!r}{did_you_mean(key, known, cutoff=0.0)}")
            else:
                sentences.append(f"{key or 'settings'}: {problem['msg'].removeprefix('Value error, ')}")
        raise SettingsError(f"{origin}: {'; '.join(sentences)}") from None


def override(document: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """The document with `a.b=value` words laid over it; a value is read as TOML, or as text where
    it is not TOML.

    >>> override({"mr": {"values": "raw"}}, ["mr.percentiles=[1, 99]", "spacing_mm=0.8"])
    {'mr': {'values': 'raw', 'percentiles': [1, 99]}, 'spacing_mm': 0.8}

    Raises:
        SettingsError: if a word has no `=`, or goes into something that is not a group of settings.
    """
    result: dict[str, Any] = dict(document)
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"{word!r} is not a setting: write key=value, for example spacing_mm=1.0")
        *groups, last = key.strip().split(".")
        place = result
        for group in groups:
            inner = place.get(group, {})
            if not isinstance(inner, Mapping):
                raise SettingsError(f"{key}: {group!r} is a value, not a group of settings")
            place[group] = dict(inner)
            place = place[group]
        try:
            place[last] = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, RecursionError):
            place[last] = text
    return result
