"""`wavespark list`: names of models, training configs and preparation recipes."""

from importlib.resources import files
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, say


def command(
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """List models, training configs and preparation recipes."""
    from wavespark.config import training_configs
    from wavespark.models import list_models
    from wavespark.prepare import recipe_names

    configs = {name: _first_comment("configs", name) for name in training_configs()}
    recipes = {name: _first_comment("recipes", name) for name in recipe_names()}
    if json:
        emit_json({"models": list_models(), "configs": configs, "recipes": recipes})
        return
    say("Models (setting model.name; ws.create_model):")
    for name in list_models():
        say(f"  {name}")
    for title, documents in (
        ("Training configs (wavespark pretrain CONFIG):", configs),
        ("Preparation recipes (wavespark prepare --recipe RECIPE):", recipes),
    ):
        say()
        say(title)
        for name, text in documents.items():
            say(f"  {name:<15} {text}")


def _first_comment(folder: str, name: str) -> str:
    """Return the title in the comment that opens a packaged TOML file, up to its details."""
    lines = files("wavespark").joinpath(folder, f"{name}.toml").read_text(encoding="utf-8").splitlines()
    text = " ".join(line.lstrip("# ").strip() for line in lines[:3] if line.startswith("#"))
    return text.replace("Baseline: ", "Baseline, ").split(". ")[0].split(": ")[0].rstrip(".")


def config_names(incomplete: str = "") -> list[str]:
    """Return names of training configs for the completion of shells."""
    from wavespark.config import training_configs

    return [name for name in training_configs() if name.startswith(incomplete)]


def model_names(incomplete: str = "") -> list[str]:
    """Return names of models for the completion of shells."""
    from wavespark.models import list_models

    return [name for name in list_models() if name.startswith(incomplete)]


def names_for_help() -> list[tuple[str, str]]:
    """Return (title, names) for the help of verbs that take a training config."""
    return [("Configs", ", ".join(config_names())), ("Models (model.name=...)", ", ".join(model_names()))]
