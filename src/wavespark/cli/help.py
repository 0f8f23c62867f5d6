"""Help of a verb: names that a user types, without Python types or doubled brackets, and lists of
what can be named."""

import enum
import inspect
import sys
import types
import typing
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

_METAVARS = {Path: "PATH", int: "N", float: "NUMBER", str: "TEXT"}


class VerbCommand(TyperCommand):
    """A command with readable help.

    `more_help()` of the verb's module, if there is one, gives paragraphs for its end.
    """

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words after the command's name in the line `Usage:`."""
        arguments = [p for p in super().get_params(ctx) if p.param_type_name == "argument"]
        return ["[OPTIONS]", *map(_usage, arguments)]

    def get_params(self, ctx: Any) -> list[Any]:
        """Return all parameters, each named for people."""
        params = super().get_params(ctx)
        hints = typing.get_type_hints(inspect.unwrap(self.callback)) if self.callback else {}
        for param in params:
            if param.param_type_name == "argument":
                _show_name_only(param)
            elif param.metavar is None and param.name in hints:
                param.metavar = _metavar(hints[param.name])
        return params

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the paragraphs of the verb's module."""
        more_help = getattr(sys.modules.get(getattr(self.callback, "__module__", "")), "more_help", None)
        for title, text in more_help() if more_help else ():
            formatter.write_paragraph()
            with formatter.section(title):
                formatter.write_text(text)


def _usage(argument: Any) -> str:
    name = argument.metavar or (argument.name or "").upper()
    if "[" in name or "..." in name:
        return str(name)
    name = f"{name}..." if argument.nargs == -1 else name
    return name if argument.required else f"[{name}]"


def _show_name_only(argument: Any) -> None:
    """Replace the first column of an argument's help, which typer fills with a Python type."""
    record = type(argument).get_help_record
    name = argument.metavar or (argument.name or "").upper()

    def get_help_record(ctx: Any) -> tuple[str, str] | None:
        row = record(argument, ctx)
        return None if row is None else (name.strip("[]"), row[1].replace("  [required]", ""))

    argument.get_help_record = get_help_record


def _metavar(hint: Any) -> str | None:
    """Return the word that stands for an option's value; None for a switch.

    >>> _metavar(list[Path] | None), _metavar(float), _metavar(bool)
    ('PATH', 'NUMBER', None)
    """
    kinds = [hint]
    while any(typing.get_args(k) for k in kinds):
        kinds = [inner for k in kinds for inner in (typing.get_args(k) or (k,))]
    kind = next((k for k in kinds if k is not types.NoneType), str)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "|".join(str(member.value) for member in kind)
    return None if kind is bool else _METAVARS.get(kind, "TEXT")
