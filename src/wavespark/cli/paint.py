"""`wavespark paint`: label maps of heads become images of random contrast, for pre-training."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, progress, say
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


def command(
    label_map: Annotated[
        list[Path],
        typer.Argument(
            help="Label maps with FreeSurfer's label values (NIfTI, NRRD or MGH), or folders of them.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the images and their list, heads.csv.")],
    copies: Annotated[int, typer.Option(min=1, help="Images per label map, each with its own contrast.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Make synthetic MR heads from label maps, for pre-training.

    Each image has a random contrast, as in SynthSeg. Pass OUTPUT/heads.csv to `wavespark prepare`.
    The images are semi-synthetic: state this when you publish results. Existing files are kept, so
    the same command resumes after a stop.
    """
    paths = _label_maps(label_map)
    from wavespark.samples.painting import paint_label_maps

    with progress("paint") as on_progress:
        heads = paint_label_maps(paths, output, copies=copies, seed=seed, on_progress=on_progress)
    if as_json:
        emit_json({"list": str(heads), "label_maps": len(paths), "heads": len(paths) * copies})
    else:
        say(f"{len(paths)} label map(s) painted {copies} time(s) each.")
        say(f"Next: wavespark prepare {printable(heads)} --output STORE")


def _label_maps(given: list[Path]) -> list[Path]:
    """Files in the order of their names; a folder stands for the files directly in it."""
    paths: list[Path] = []
    for path in given:
        if not path.exists():
            raise SettingsError(f"there is nothing at {printable(path)}: check its spelling")
        paths += sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not paths:
        raise SettingsError(f"there is no file in {', '.join(printable(p) for p in given)}")
    return paths
