"""`wavespark import FILE --output DIR`: weights that another program saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.checks import require_file
from wavespark.cli.console import emit_json, progress, say
from wavespark.text import printable

NO_ARGS_IS_HELP = True
_SHOWN = 12


def _stems(stems: Mapping[str, int]) -> str:
    return ", ".join(f"{'' if name == 'any' else printable(name) + ' '}{n} channel(s)" for name, n in stems.items())


def command(
    file: Annotated[Path, typer.Argument(help="File with the weights: .pt, .pth, .ckpt or .safetensors.")],
    output: Annotated[
        Path, typer.Option(help="Folder for the encoder, or for weights.safetensors if no encoder fits.")
    ],
    model: Annotated[
        str,
        typer.Option(
            help="Model that the weights belong to (names: wavespark list).  [default: the model that most weights fit]"
        ),
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Import weights of nnssl, SparK, VoCo and other programs.

    Reads tensors only and never runs code from the file. Prints which weights fit and which are
    missing or unused.

    Example: `wavespark import weights.pth --output encoder --model resenc_l`.
    """
    from dataclasses import asdict

    from wavespark.models import model_settings

    require_file(file, "FILE")
    if model:
        model_settings(model)
    with progress("import", "loading PyTorch"):
        from wavespark.engine import import_weights

        found = import_weights(file, output, model)
    if json:
        emit_json(asdict(found) | {"output": str(output)})
        return
    where = f" under {printable(found.found_under)}" if found.found_under else ""
    say(f"{found.found} weight(s) in {printable(file)}{where}.")
    for kind, names in (
        ("another shape", found.other_shapes),
        (f"in the file, not in {found.model}", found.unused),
        (f"in {found.model}, not in the file", found.missing),
        ("other groups, not looked at", found.elsewhere),
    ):
        if names:
            more = f" and {len(names) - _SHOWN} more (--json lists all)" if len(names) > _SHOWN else ""
            say(f"  {len(names)} {kind}: {printable(', '.join(names[:_SHOWN]))}{more}")
    if found.copies:
        say(f"  {len(found.copies)} are second names of weights that are used")
    if found.whole:
        say(
            f"All {len(found.used)} weights of {found.model} ({_stems(found.stems)}) are there: {printable(output)} is its export."
        )
        say(f"Load it with wavespark.load_encoder, or begin a run with it: model.init={printable(output)}")
    else:
        total = len(found.used) + len(found.missing) + len(found.other_shapes)
        say(
            f"They are no whole encoder of this package. The nearest is {found.model}: {len(found.used)} of {total} weights."
        )
        say(
            f"All are in {printable(output)}/weights.safetensors; a run takes what fits with model.init=... model.init_partial=true"
        )
