"""`wavespark inspect` for runs and exports."""

import json
from pathlib import Path
from typing import Any

from wavespark.cli.console import say
from wavespark.errors import CheckpointError
from wavespark.text import printable

Document = dict[str, Any]


def is_run(path: Path) -> bool:
    """A folder that `wavespark pretrain` began."""
    return (path / "config.toml").is_file() and (path / "metrics.jsonl").is_file()


def describe_run(path: Path, verify: bool) -> Document:
    """Checkpoints, where the run is, its newest held-out measure, its settings."""
    import tomllib

    from wavespark.checkpoints import checkpoint_folders, read_checkpoint
    from wavespark.files import read_lines

    steps, measures = (read_lines(path / f"{name}.jsonl", strict=False) for name in ("metrics", "validation"))
    damaged = []
    for folder in checkpoint_folders(path / "checkpoints") if verify else []:
        try:
            read_checkpoint(folder)
        except CheckpointError as error:
            damaged.append(str(error))
    try:
        settings = tomllib.loads((path / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise CheckpointError(
            f"{path / 'config.toml'} is damaged: the run cannot be continued with its settings"
        ) from None
    return {
        "kind": "run",
        "path": str(path),
        "finished": (path / "summary.json").is_file(),
        "step": steps[-1]["step"] if steps else 0,
        "steps": settings.get("run", {}).get("steps"),
        "checkpoints": [folder.name for folder in checkpoint_folders(path / "checkpoints")],
        "first": measures[0] if measures else {},
        "last": measures[-1] if measures else {},
        "settings": settings,
        "damaged": damaged,
        "failed": f"{len(damaged)} checkpoint(s) are damaged" if damaged else None,
    }


def say_run(document: Document) -> None:
    """The same for people."""
    from wavespark.cli.pretrain import say_learning

    say(f"run         {printable(document['path'])}, {'finished' if document['finished'] else 'not finished'}")
    say(f"step        {document['step']} of {document['steps']}")
    say(f"checkpoints {', '.join(document['checkpoints']) or 'none yet'}")
    for sentence in document["damaged"]:
        say(f"damaged     {printable(sentence)}")
    if document["last"]:
        say_learning(document["first"], document["last"])
    for table, values in document["settings"].items():
        say(f"  [{table}] " + ", ".join(f"{key} = {printable(value)}" for key, value in values.items()))


def is_export(path: Path) -> bool:
    """A folder that `wavespark export` wrote."""
    return (path / "config.json").is_file() and (path / "model.safetensors").is_file()


def describe_export(path: Path) -> Document:
    """Model, stems, preparation and provenance; its files are always checked."""
    from wavespark.checkpoints import read_export

    export = read_export(path)
    try:
        config = export.config
        _ = config["model"]["name"], dict(config["stems"]), config["preparation"]["fingerprint"]
        _ = config["strides"], config["channels"], config["cell"], config["provenance"]
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{path / 'config.json'} does not describe an encoder as wavespark writes it") from None
    parameters = sum(t.numel() for t in export.weights.values())
    return {
        "kind": "export",
        "path": str(path),
        "parameters": parameters,
        "config": dict(export.config),
        "failed": None,
    }


def say_export(document: Document) -> None:
    """The same for people."""
    config = document["config"]
    say(f"export      {printable(document['path'])}, every file as it was written")
    say(f"model       {printable(config['model']['name'])}, {document['parameters'] / 1e6:.2f} M parameters")
    say(f"stems       {', '.join(f'{printable(k)}: {v} channel(s)' for k, v in config['stems'].items())}")
    say(f"levels      strides {config['strides']}, channels {config['channels']}, cell {config['cell']}")
    say(f"preparation recipe fingerprint {printable(config['preparation']['fingerprint'])[:12]}")
    say(f"provenance  {printable(json.dumps(config['provenance']))}")
