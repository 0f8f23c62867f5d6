"""`wavespark export RUN`: the encoder alone, self-describing."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.console import emit_json, note, printable, say
from wavespark.errors import SettingsError

NO_ARGS_IS_HELP = True
FORMATS = ("wavespark", "safetensors")


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    output: Annotated[Path, typer.Option(help="Folder (wavespark) or file (safetensors) to write.")],
    format: Annotated[
        str,
        typer.Option(
            help="wavespark: a folder that `ws.load_encoder` reads. safetensors: one file of weights, with the settings in its header."
        ),
    ] = "wavespark",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on standard output.")] = False,
) -> None:
    """Write the encoder of a run's newest checkpoint, with everything that is needed to use it."""
    from wavespark.engine import export_checkpoint, load_encoder

    if format not in FORMATS:
        raise SettingsError(f"there is no format {printable(format)!r}: use one of {', '.join(FORMATS)}")
    step = export_checkpoint(run, output, format, say=note)
    if json:
        emit_json({"output": str(output), "format": format, "step": step})
        return
    say(f"The encoder of step {step} is in {printable(output)}.")
    if format == "wavespark":
        encoder = load_encoder(output)
        say(
            f"Loaded again: {sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M parameters, strides {encoder.strides}, channels {encoder.channels}."
        )
        say(f'In Python: import wavespark as ws; encoder = ws.load_encoder("{printable(output)}")')
