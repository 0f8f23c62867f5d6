"""Pages that mkdocs makes from the code when the site is built, so that they never lag behind it: commands, settings, recipes, models, Python, benchmarks."""

import ast
import importlib
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.resources import files as resources
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """mkdocs calls this once it knows the files of docs/."""
    pages = {
        "reference/cli.md": commands(),
        "reference/settings.md": settings(),
        "reference/recipes.md": recipes(),
        "reference/models.md": models(),
        "reference/api.md": api(),
        "reference/benchmarks.md": benchmarks(),
        "explanation/security.md": (ROOT / "SECURITY.md").read_text(encoding="utf-8"),
        "contributing.md": (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for address, text in pages.items():
        if (stub := files.get_file_from_path(address)) is not None:  # what a reader of the repository finds instead
            files.remove(stub)
        files.append(File.generated(config, address, content=text))
    return files


def commands() -> str:
    """Every verb's help, as the command line prints it."""
    import typer

    from wavespark.cli.main import VERBS, app

    group = typer.main.get_command(app)
    context = group.make_context("wavespark", ["--help"], resilient_parsing=True)
    parts = [
        "# Commands",
        "Generated from the command line itself. `wavespark VERB --help` prints the same.",
        _block(group.get_help(context)),
    ]
    for verb in VERBS:
        command = group.commands[verb]
        inner = command.make_context(verb, [], parent=context, resilient_parsing=True)
        parts += [f"## {verb}", _block(command.get_help(inner))]
        for name, part in getattr(command, "commands", {}).items():
            own = part.make_context(name, [], parent=inner, resilient_parsing=True)
            parts += [f"### {verb} {name}", _block(part.get_help(own))]
    return "\n\n".join(parts) + "\n"


def _block(text: str) -> str:
    return f"```text\n{inspect.cleandoc(text)}\n```"


def settings() -> str:
    """Every key of every kind of run, with its type, its default and what it is."""
    from wavespark.config import PretrainSettings
    from wavespark.config.downstream import FinetuneSettings
    from wavespark.prepare.recipe import Recipe

    parts = [
        "# Settings",
        "Generated from the code. A setting is a key of a TOML file or a word `key=value` on the command line; an unknown key is an error "
        "that names the nearest known one, and the resolved settings lie in the run's folder.",
        "## `wavespark pretrain`",
        *_tables(PretrainSettings),
        "## `wavespark prepare`",
        *_tables(Recipe),
        "## `wavespark finetune`",
        *_tables(FinetuneSettings),
    ]
    return "\n\n".join(parts) + "\n"


def _tables(model: Any, prefix: str = "") -> Iterator[str]:
    rows, inner = [], []
    said = _attribute_docs(model)
    for name, field in _fields(model).items():
        kind = field.annotation
        if inspect.isclass(kind) and (hasattr(kind, "model_fields") or is_dataclass(kind)):
            inner.append((kind, f"{prefix}{name}."))
            continue
        default = "required" if field.is_required() else f"`{_short(field.get_default(call_default_factory=True))}`"
        rows.append(f"| `{prefix}{name}` | `{_kind(field)}` | {default} | {said.get(name, '')} |")
    if rows:
        yield "\n".join(["| key | kind | default | what it is |", "|---|---|---|---|", *rows])
    for kind, name in inner:
        yield f"### {name.rstrip('.')}"
        if kind.__doc__:  # its own; inspect.getdoc would also find that of the class it extends
            yield inspect.cleandoc(kind.__doc__).splitlines()[0]
        yield from _tables(kind, name)


def _fields(model: Any) -> dict[str, Any]:
    """Return the fields of a settings class; those of a dataclass in the form that pydantic's have."""
    if hasattr(model, "model_fields"):
        return dict(model.model_fields)
    return {f.name: FieldInfo(annotation=f.type, default=f.default) for f in fields(model)}


def _kind(field: Any) -> str:
    text = inspect.formatannotation(field.annotation).replace("typing.", "")
    text = re.sub(r"Annotated\[(\w+), FieldInfo\(.*?\)\]\)\]", r"\1", text)
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    limits = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in signs.items() if hasattr(m, name)]
    return (text + (f", {', '.join(limits)}" if limits else "")).replace(" | ", " or ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else text[:77] + "..."


def _attribute_docs(model: Any) -> dict[str, str]:
    """The strings under the fields of a class and of the classes that it extends."""
    said: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        try:
            body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0].body
        except (OSError, TypeError, AttributeError, IndexError):
            continue
        for field, after in itertools.pairwise(body):
            text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, str):
                said[field.target.id] = " ".join(text.split()).replace("|", "\\|")
    return said


def recipes() -> str:
    """Write the page of the preparation recipes and training configurations that come with the package."""
    parts = [
        "# Recipes and configurations",
        "They come with the package. Name one, or write a TOML file of your own; a training configuration may begin with "
        '`extends = "NAME"` and then holds its changes only.',
    ]
    for title, folder in (("Preparation recipes", "recipes"), ("Training configurations", "configs")):
        parts.append(f"## {title}")
        files = (p for p in resources("wavespark").joinpath(folder).iterdir() if p.name.endswith(".toml"))
        for path in sorted(files, key=lambda p: p.name):
            text = path.read_text(encoding="utf-8").strip()
            parts += [f"### {path.name.removesuffix('.toml')}", f"```toml\n{text}\n```"]
    return "\n\n".join(parts) + "\n"


def models() -> str:
    """Every encoder by name, with its size; made without memory."""
    import torch

    from wavespark.models import create_model, list_models

    rows = []
    for name in list_models():
        with torch.device("meta"):
            encoder = create_model(name, in_channels=1)
        size = sum(p.numel() for p in encoder.parameters()) / 1e6
        rows.append(
            f"| `{name}` | {size:.2f} | {' x '.join(map(str, encoder.cell))} | {_listed(encoder.strides)} | {', '.join(map(str, encoder.channels))} |"
        )
    head = [
        "| name | million parameters, one input channel | cell, voxels | strides | channels |",
        "|---|---|---|---|---|",
    ]
    return (
        "\n\n".join(
            [
                "# Models",
                "`wavespark.create_model(NAME, in_channels=1)`. Counted when this page was made.",
                "\n".join([*head, *rows]),
            ]
        )
        + "\n"
    )


def _listed(strides: Any) -> str:
    return ", ".join(str(s) if isinstance(s, int) else "x".join(map(str, s)) for s in strides)


def api() -> str:
    """The public names with their signatures and docstrings."""
    parts = [
        "# Python",
        "Generated from the docstrings. Axes: B batch, C channels, D H W voxels or cells along R, A, S, N rows.",
    ]
    for room in ("wavespark", "wavespark.masking", "wavespark.sparse", "wavespark.report", "wavespark.doctor"):
        module = importlib.import_module(room)
        parts += [f"## {room}", (inspect.getdoc(module) or "").splitlines()[0]]
        for name in sorted(n for n in module.__all__ if not n.startswith("_")):
            thing = getattr(module, name)
            if inspect.ismodule(thing):  # a package that can be called as its function of the same name
                thing = getattr(thing, name)
            if not (inspect.isclass(thing) or inspect.isroutine(thing)):
                continue
            try:
                signature = str(inspect.signature(thing))
            except ValueError:
                signature = "(...)"
            doc = inspect.getdoc(thing) or ""
            parts += [
                f"### {room}.{name}",
                f"```python\n{name}{_clean(signature)}\n```",
                f"```text\n{doc}\n```" if doc else "",
            ]
    return "\n\n".join(parts) + "\n"


def _clean(signature: str) -> str:
    for word in ("torch.", "typing.", "collections.abc.", "pathlib._local.", "pathlib."):
        signature = signature.replace(word, "")
    return signature


def benchmarks() -> str:
    """benchmarks/results/*.json as tables: what was measured, with which command, against which target."""
    parts = [
        "# Benchmarks",
        "Made from `benchmarks/results`. Figures are ratios measured on one machine between forms that take turns in one process; absolute seconds "
        "are given only so that the ratios can be checked. Run the command to have yours.",
    ]
    for path in sorted((ROOT / "benchmarks/results").glob("*.json")):
        document = json.loads(path.read_text(encoding="utf-8"))
        parts.append(f"## {document.get('bench', path.stem) if isinstance(document, dict) else path.stem}")
        if not isinstance(document, dict):
            continue
        parts.append(
            "\n".join(
                f"- {k}: {_figure(v)}" if k != "command" else f"- command: `{v}`"
                for k, v in document.items()
                if isinstance(v, str | int | float | bool)
            )
        )
        for key, value in document.items():
            rows = value if isinstance(value, list) else None
            if rows and all(isinstance(row, dict) for row in rows):
                columns = [
                    c for c in dict.fromkeys(c for row in rows for c in row) if all(_shown(row.get(c)) for row in rows)
                ]
                # Ratios are the figures; seconds and page faults are in the file, to check them.
                columns = [c for c in columns if not c.endswith(("seconds", "faults"))]
                parts.append(f"**{key}**")
                table = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
                table += ["| " + " | ".join(_figure(row.get(c)) for c in columns) + " |" for row in rows]
                parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def _shown(value: Any) -> bool:
    return (
        isinstance(value, str | int | float | bool | None)
        or (isinstance(value, dict) and value.keys() >= {"mean", "sd"})
        or _has_interval(value)
    )


def _has_interval(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() >= {"value", "low", "high"}


def _figure(value: Any) -> str:
    if value is None:
        return ""
    if _has_interval(value):
        return f"{value['value']:.3f} [{value['low']:.3f}, {value['high']:.3f}]"
    if isinstance(value, dict):
        return f"{value['mean']:.3f} ± {value['sd']:.3f} {value.get('verdict', '')}".rstrip()
    if isinstance(value, bool):
        return "yes" if value else "**no**"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "\\|")
