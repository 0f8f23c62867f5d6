"""`wavespark predict MODEL SOURCE... --output FOLDER`: a fine-tuned model applied, in the geometry
of the sources."""

from pathlib import Path
from typing import Annotated

import typer

from wavespark.cli.checks import require_fine_tuned, require_paths
from wavespark.cli.console import emit_json, note, progress, say
from wavespark.cli.signals import stop_requests
from wavespark.errors import SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder that `wavespark finetune` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder for the predictions.")],
    source: Annotated[
        list[str] | None, typer.Argument(metavar="[SOURCE ...]", help="Folders or files with CT or MR volumes.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="Store that `wavespark prepare` wrote, instead of SOURCE.")] = None,
    dicom_seg: Annotated[
        bool,
        typer.Option(
            "--dicom-seg",
            help="Also write segmentations of DICOM series as DICOM SEG (ID.seg.dcm; needs the extra `dicom-seg`). "
            "These files contain the patient's name.",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Also predict volumes of a modality that the model was not trained on.")
    ] = False,
    device: Annotated[str, typer.Option(help="Device: auto, cpu or cuda.")] = "auto",
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
) -> None:
    """Apply a fine-tuned model to scans or to a store.

    Give either SOURCE or --store. Segmentations have the voxel grid of the source scan; files are
    named by id. `wavespark inspect OUTPUT/store --reveal ID` shows which scan an id is. The same
    command resumes after a stop.

    Example: `wavespark predict finetuned MY_FOLDER --output predictions`.
    """
    with stop_requests() as should_stop:
        from dataclasses import asdict, replace

        from wavespark.prepare import open_store

        if device not in ("auto", "cpu", "cuda"):
            raise SettingsError(f"--device {printable(device)} is not possible: use auto, cpu or cuda")
        if bool(source) == (store is not None):
            raise SettingsError("give either SOURCE (files or folders) or --store (prepared already)")
        if dicom_seg and not source:
            raise SettingsError("--dicom-seg needs SOURCE: a store holds nothing of the DICOM files it was made from")
        require_fine_tuned(model)
        require_paths(source)
        if store is not None:
            open_store(store)
        with progress("predict", "loading PyTorch"):
            from wavespark.downstream import load_model
            from wavespark.downstream.dicom_seg import require_highdicom, write_dicom_segmentations
            from wavespark.downstream.prediction import predict_store
            from wavespark.downstream.segment import Segment
            from wavespark.engine.machine.device import cores
            from wavespark.prepare import prepare

            found = load_model(model, device)
        if dicom_seg and not isinstance(found.task, Segment):
            raise SettingsError(f"--dicom-seg is for a model that segments, {printable(model)} does not")
        if dicom_seg:
            require_highdicom()
        if store is None:
            store = output / "store"
            with progress("prepare") as on_progress:
                report = prepare(
                    [str(s) for s in source or ()], store, found.recipe, workers=cores(), on_progress=on_progress
                )
            for refusal in report.refused:
                note(f"left out, {refusal.reason}: {printable(refusal.sentence)} (id {refusal.source_id})")
        with progress("predict") as on_progress:
            done = predict_store(
                found,
                open_store(store),
                output,
                force=force,
                on_progress=on_progress,
                log=note,
                should_stop=should_stop,
            )
        if dicom_seg and isinstance(found.task, Segment):
            written = write_dicom_segmentations(
                open_store(store),
                source or (),
                output,
                found.task.classes,
                note,
                getattr(found.task, "names", ()),
            )
            done = replace(done, files=(*done.files, *written))
    if json:
        emit_json(asdict(done) | {"output": str(output), "store": str(store)})
        return
    earlier = f", {done.earlier} of them by an earlier run" if done.earlier else ""
    say(f"{done.volumes} volume(s) predicted{earlier} -> {printable(output)}")
    if done.left_out:
        say(f"{done.left_out} volume(s) left out: the model has no stem for their modality, or was not trained on it")
    kinds = sorted({Path(f).suffix for f in done.files})
    say(
        f"Written: {len(done.files)} file(s) ({', '.join(kinds)}), called by id; the source of an id: wavespark inspect {printable(store)} --reveal ID"
    )
    say(f"With labels: wavespark evaluate {printable(output)} --store {printable(store)} --labels labels.csv")
