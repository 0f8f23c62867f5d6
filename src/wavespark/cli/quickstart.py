"""`wavespark quickstart`: from sample volumes to a report and an encoder, in minutes on a CPU."""

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.budget import FEWEST_STEPS, MEASURES, Pace, patients_for, steps_for
from wavespark.cli.checks import require_paths
from wavespark.cli.console import note, progress, say
from wavespark.cli.pretrain import say_learning
from wavespark.cli.signals import stop_requests
from wavespark.text import printable


def command(
    output: Annotated[Path, typer.Option(help="Folder for all results. Run the same command again to resume.")] = Path(
        "wavespark-quickstart"
    ),
    minutes: Annotated[
        float, typer.Option(min=0.2, help="Approximate total time in minutes; longer trains better.")
    ] = 5.0,
    data: Annotated[
        list[Path] | None,
        typer.Option(help="File or folder of your own volumes, added to the samples; may be repeated."),
    ] = None,
) -> None:
    """Run the whole workflow on sample volumes, in minutes.

    Prepares a store, pre-trains an encoder, writes a report and exports the encoder. The samples
    are the MNI152 brain (needs the extra `samples`) and synthetic CTA and MRA heads; --data adds
    your own volumes.
    """
    require_paths(data)
    started = time.monotonic()

    def seconds_left() -> float:
        return minutes * 60 - (time.monotonic() - started)

    store_path, run = output / "store", output / "run"
    output.mkdir(parents=True, exist_ok=True)
    heads, head_seconds = _write_samples(output, minutes)
    store, volumes = _prepare(heads, data or [], store_path)
    settings = _settings(run, store, head_seconds, seconds_left)
    say(
        f"3/5  pre-train: {settings.model.name}, {settings.run.steps} steps of {settings.data.batch} crops of "
        f"{_box(settings.data.crop)} voxels, {settings.mask.ratio:.0%} of the cells hidden -> {printable(run)}"
    )
    with stop_requests() as should_stop, progress("pre-train", "measuring random weights") as on_progress:
        from wavespark.engine import pretrain

        summary = pretrain(settings, store, run, on_progress=on_progress, log=note, should_stop=should_stop)
    say("4/5  report")
    with progress("report", "drawing"):
        from wavespark.report import write_report

        report = write_report(run)
    say("5/5  export, and load it again")
    with progress("export", "loading"):
        from wavespark.engine import load_encoder

        parameters = sum(p.numel() for p in load_encoder(run / "exports" / "encoder").parameters())

    say()
    say_learning(summary.first, summary.last)
    say(
        f"{volumes} volume(s) used, {len(store.refused)} refused; {summary.steps} steps, "
        f"{summary.seconds_per_step:.2f} s each; {(time.monotonic() - started) / 60:.1f} minutes in all."
    )
    say()
    say(f"  report    {printable(report)}   (open it in a browser)")
    say(f"  encoder   {printable(run / 'exports' / 'encoder')}   ({parameters / 1e6:.2f} M parameters)")
    say(f"  store     {printable(store_path)}")
    say(f"  run       {printable(run)}")
    say()
    _say_next(output, run, store_path)


def _write_samples(output: Path, minutes: float) -> tuple[Path, float]:
    """Write the synthetic heads; return their folder and the seconds of a small head, which measure
    the machine."""
    with progress("samples", "measuring this machine") as on_progress:
        from wavespark.samples import DAMAGED, synthetic_head, write_collection

        synthetic_head(0, "CTA", shape=(48, 56, 40), spacing=(3.0, 3.0, 3.5))  # loads what the next one is timed with
        began = time.monotonic()
        synthetic_head(1, "CTA", shape=(48, 56, 40), spacing=(3.0, 3.0, 3.5))
        head_seconds = time.monotonic() - began
        patients = patients_for(minutes * 60, head_seconds)
        say(
            f"1/5  samples: the MNI152 brain, and {2 * patients} synthetic CTA and MRA heads as NIfTI and DICOM "
            f"-> {printable(output / 'heads')}"
        )
        heads = write_collection(output / "heads", patients, on_progress)
    for sentence in DAMAGED:
        say(f"     {sentence}")
    return heads, head_seconds


def _prepare(heads: Path, data: list[Path], store_path: Path) -> tuple[Any, int]:
    """Prepare the samples and the user's volumes; return the store and how many volumes it
    holds."""
    with progress("prepare", "loading") as on_progress:
        from wavespark.prepare import load_recipe, open_store, prepare
        from wavespark.samples import mni152_brain

        sources = [str(mni152_brain()), str(heads), *map(str, data)]
        say(f"2/5  prepare: {len(sources)} source(s) -> {printable(store_path)}")
        prepared = prepare(sources, store_path, load_recipe("head-1mm"), workers=2, on_progress=on_progress)
    store = open_store(store_path)
    for refusal in store.refused:
        say(f"     left out, {refusal.reason}: {printable(refusal.sentence)} (id {refusal.source_id})")
    return store, prepared.volumes


def _settings(run: Path, store: Any, head_seconds: float, seconds_left: Any) -> Any:
    """Return the config `tiny-cpu` with as many steps as fit; the settings of the run where it has
    begun before."""
    from wavespark.config import load_pretraining

    if (run / "config.toml").exists():
        return load_pretraining(run / "config.toml")
    config = load_pretraining("tiny-cpu")
    with progress("measure", "loading PyTorch, then a few steps on the clock"):
        from wavespark.engine.run.timing import seconds_of_a_run

        step, measure = seconds_of_a_run(config, store)
    steps = steps_for(seconds_left(), Pace(head=head_seconds, step=step, measure=measure))
    if steps == FEWEST_STEPS:
        say(f"     Only {steps} steps: this machine needs more time to learn something. Try --minutes 15.")
    words = [
        f"run.steps={steps}",
        f"run.validate_every={-(-steps // (MEASURES - 1))}",
        f"run.checkpoint_every={min(50, max(5, steps // 8))}",
    ]
    return load_pretraining("tiny-cpu", words)


def _say_next(output: Path, run: Path, store_path: Path) -> None:
    from wavespark.samples.collection import labels_of

    labels = printable(labels_of(output / "heads") / "labels.csv")
    folders = f"{printable(run)} --store {printable(store_path)} --labels {labels}"
    say("Does it help? Vessels of other heads from frozen features, beside random weights, which hardly find any:")
    say(f"  wavespark finetune segment {folders} --frozen --output {printable(output / 'vessels')}")
    say("Your own volumes:")
    say("  wavespark prepare MY_FOLDER --output my-store")
    say("  wavespark pretrain tiny-cpu --store my-store --output my-run")
    say("In Python:")
    say(f"  python -c \"import wavespark as ws; print(ws.load_encoder('{printable(run)}').channels)\"")


def _box(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
