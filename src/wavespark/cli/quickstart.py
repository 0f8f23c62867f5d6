"""`wavespark quickstart`: the main job on the volumes that come with the package, from files to a report and an encoder, in minutes on a CPU."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.checks import require_paths
from wavespark.cli.console import note, progress, say
from wavespark.cli.pretrain import say_learning
from wavespark.cli.signals import stop_requests
from wavespark.text import printable

RESERVE_SECONDS = 25.0
"""For the held-out measures, the report and the export."""


def command(
    output: Annotated[Path, typer.Option(help="Folder for everything; the same command goes on where it was.")] = Path(
        "wavespark-quickstart"
    ),
    minutes: Annotated[float, typer.Option(min=0.2, help="About how long it may take in all.")] = 5.0,
    data: Annotated[
        list[Path] | None, typer.Option(help="Own volumes or folders beside the sample; may be given several times.")
    ] = None,
) -> None:
    """Prepare, pre-train, report, export: on the MNI152 brain of the `samples` extra, on synthetic heads, and on your own volumes with --data."""
    require_paths(data)
    started = time.monotonic()
    from wavespark.engine import load_encoder, pretrain
    from wavespark.prepare import load_recipe, open_store, prepare
    from wavespark.report import write_report
    from wavespark.samples import DAMAGED, mni152_brain, write_collection
    from wavespark.samples.collection import labels_of

    store_path, run = output / "store", output / "run"
    output.mkdir(parents=True, exist_ok=True)
    patients = min(6, max(2, round(1.2 * minutes)))
    say(
        f"1/5  samples: the MNI152 brain, and {2 * patients} synthetic CTA and MRA heads as NIfTI and DICOM -> {printable(output / 'heads')}"
    )
    with progress("samples") as on_progress:
        heads = write_collection(output / "heads", patients, on_progress)
    for sentence in DAMAGED:
        say(f"     {sentence}")
    sources = [str(mni152_brain()), str(heads), *map(str, data or [])]
    say(f"2/5  prepare: {len(sources)} source(s) -> {printable(store_path)}")
    with progress("prepare") as on_progress:
        prepared = prepare(sources, store_path, load_recipe("head-1mm"), workers=2, on_progress=on_progress)
    store = open_store(store_path)
    for refusal in store.refused:
        say(f"     left out, {refusal.reason}: {printable(refusal.sentence)} (id {refusal.source_id})")

    settings = _settings(run, store, minutes * 60 - (time.monotonic() - started) - RESERVE_SECONDS)
    say(
        f"3/5  pre-train: {settings.model.name}, {settings.run.steps} steps of {settings.data.batch} crops of {_box(settings.data.crop)} voxels, "
        f"{settings.mask.ratio:.0%} of the cells hidden -> {printable(run)}"
    )
    with stop_requests() as should_stop, progress("pre-train") as on_progress:
        summary = pretrain(settings, store, run, on_progress=on_progress, log=note, should_stop=should_stop)
    say("4/5  report")
    report = write_report(run)
    say("5/5  export, and load it again")
    encoder = load_encoder(run / "exports" / "encoder")

    say()
    say_learning(summary.first, summary.last)
    say(
        f"{prepared.volumes} volume(s) used, {len(store.refused)} refused; {summary.steps} steps, {summary.seconds_per_step:.2f} s each; "
        f"{(time.monotonic() - started) / 60:.1f} minutes in all."
    )
    say()
    say(f"  report    {printable(report)}   (open it in a browser)")
    say(
        f"  encoder   {printable(run / 'exports' / 'encoder')}   ({sum(p.numel() for p in encoder.parameters()) / 1e6:.2f} M parameters)"
    )
    say(f"  store     {printable(store_path)}")
    say(f"  run       {printable(run)}")
    say()
    say("Try next:")
    labels = printable(labels_of(output / "heads") / "labels.csv")
    say(f"  wavespark probe {printable(run)} --store {printable(store_path)} --labels {labels} --column contrast")
    say(
        f"  wavespark finetune segment {printable(run)} --store {printable(store_path)} --labels {labels} --output {printable(output / 'vessels')}"
    )
    say("  wavespark prepare MY_FOLDER --output my-store")
    say("  wavespark pretrain tiny-cpu --store my-store --output my-run")
    say(f"  python -c \"import wavespark as ws; print(ws.load_encoder('{printable(run)}').channels)\"")


def _settings(run: Path, store: Any, seconds: float) -> Any:
    """The recipe `tiny-cpu` with as many steps as fit in the time; those of the run where it has begun before."""
    from wavespark.config import load_pretraining
    from wavespark.engine import seconds_per_step

    if (run / "config.toml").exists():
        return load_pretraining(run / "config.toml")
    recipe = load_pretraining("tiny-cpu")
    steps = max(20, int(seconds / seconds_per_step(recipe, store)))
    words = [f"run.steps={steps}", f"run.validate_every={max(10, -(-steps // 4))}"]
    return load_pretraining("tiny-cpu", [*words, f"run.checkpoint_every={min(50, max(5, steps // 8))}"])


def _box(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
