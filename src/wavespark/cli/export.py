"""`wavespark export RUN`: the encoder alone, or a fine-tuned model, self-describing and in the
forms that other programs read."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.checks import require_choice, require_run, require_stem
from wavespark.cli.console import emit_json, note, progress, say
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


def command(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN",
            help="Folder that `wavespark pretrain` wrote; for monai and onnx also one that `finetune segment` wrote.",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            help="Folder (wavespark, huggingface, monai) or file (safetensors, onnx) to write; for nnunet a .pth file with a "
            "ResEnc model, else a folder."
        ),
    ],
    format: Annotated[
        str,
        typer.Option(
            help="wavespark: folder that `ws.load_encoder` reads. safetensors: one file with the settings in its header. "
            "huggingface: folder for AutoModel.from_pretrained. nnunet: .pth of a ResEnc, or folder with a trainer "
            "plug-in. monai: bundle. onnx: one file, for crops of one size."
        ),
    ] = "wavespark",
    modality: Annotated[
        str | None,
        typer.Option(
            help="Input modality to keep, e.g. MR or CT; needed for nnunet, monai and onnx if the encoder has several."
        ),
    ] = None,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="D,H,W",
            help="Input size of the ONNX file, or window of the MONAI bundle, in voxels, e.g. 96,96,96.  [default: as trained]",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Export the encoder of a run, or a fine-tuned model.

    Takes the newest checkpoint of the run. The wavespark format holds the weights, the model's
    settings and the preparation recipe.

    Example: `wavespark export run --output encoder`.
    """
    from wavespark.checkpoints import FORMATS

    require_choice(format, FORMATS, "--format")
    size = None if crop is None else _size(crop)
    if (run / "model" / "config.json").is_file():
        with progress("export", "loading PyTorch"):
            from wavespark.downstream.bundle import export_task

            export_task(run, output, format, modality=modality, crop=size)
        if json:
            emit_json({"output": str(output), "format": format, "model": str(run / "model")})
        else:
            say(f"The fine-tuned model is in {printable(output)} ({format}).")
        return
    require_run(run)
    require_stem(run, modality, one_input=format in ("nnunet", "monai", "onnx"))
    with progress("export", "loading PyTorch"):
        from wavespark.engine import load_encoder
        from wavespark.engine.encoders.formats import export_as

        step = export_as(run, output, format, modality=modality, crop=size, log=note)
    if json:
        emit_json({"output": str(output), "format": format, "step": step})
        return
    say(f"The encoder of step {step} is in {printable(output)}: {FORMATS[format]}.")
    if format == "wavespark":
        encoder = load_encoder(output)
        say(
            f"Loaded again: {sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M parameters, strides {encoder.strides}, channels {encoder.channels}."
        )
        say(f'In Python: import wavespark as ws; encoder = ws.load_encoder("{printable(output)}")')


def _size(text: str) -> tuple[int, int, int]:
    words = text.split(",")
    if len(words) not in (1, 3) or not all(w.strip().isdecimal() and int(w) > 0 for w in words):
        raise SettingsError(
            f"--crop {printable(text)} is not possible: write one number or D,H,W, for example 96,96,96"
        )
    d, h, w = (int(x) for x in (words * 3 if len(words) == 1 else words))
    return d, h, w
