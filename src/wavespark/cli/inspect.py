"""`wavespark inspect PATH`: what a store is, and what is in it.

Each kind of folder that can be inspected is one entry of `KINDS`: how to know it, what to tell, how
to say it.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from wavespark.cli.console import emit_json, fail, progress, say
from wavespark.cli.inspect_run import describe_export, describe_run, is_export, is_run, say_export, say_run
from wavespark.cli.prepare import say_refusals
from wavespark.errors import ExitCode, InputError, SettingsError
from wavespark.text import printable

NO_ARGS_IS_HELP = True

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Options:
    """Options of `inspect`."""

    verify: bool = False
    reveal: tuple[str, ...] = ()
    mosaic: Path | None = None
    guessed: bool = False


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of folder or file that can be inspected."""

    name: str
    is_it: Callable[[Path], bool]
    describe: Callable[[Path, Options], Document]
    """Path -> plain values; `failed` says why the command must fail, or is None."""
    say: Callable[[Document], None]


def _describe_store(path: Path, options: Options) -> Document:
    from wavespark.files import write_file
    from wavespark.pages.png import png
    from wavespark.prepare import open_store
    from wavespark.prepare.overview import mosaic, mosaic_page

    store = open_store(path)
    groups: Counter[tuple[str, str, str, int]] = Counter()
    patients = set()
    notes: Counter[str] = Counter()
    sizes = []
    for v in store:
        groups[v.modality, v.contrast or "-", " x ".join(f"{s:.3g}" for s in v.spacing), v.channels] += 1
        patients.add(v.patient)
        notes.update(v.notes)
        sizes.append(v.size)
    refused = store.refused
    if options.mosaic is not None:
        as_page = options.mosaic.suffix.lower() in (".html", ".htm")
        write_file(options.mosaic, mosaic_page(store).encode() if as_page else png(mosaic(store)))
    document: Document = {
        "kind": "store",
        "path": str(path),
        "volumes": len(store),
        "patients": len(patients),
        "groups": [
            {"modality": m, "contrast": None if c == "-" else c, "spacing_mm": s, "channels": n, "volumes": count}
            for (m, c, s, n), count in sorted(groups.items())
        ],
        "values": _values(store),
        "median_size": [sorted(axis)[len(axis) // 2] for axis in zip(*sizes, strict=True)],
        "notes": dict(notes.most_common()),
        "refused": [{"source_id": r.source_id, "reason": r.reason, "sentence": r.sentence} for r in refused],
        "bytes": store.bytes,
        "recipe": {"name": store.recipe.name, "fingerprint": store.recipe.fingerprint, **store.recipe.settings},
        "failed": None,
    }
    if options.guessed:
        document["guessed"] = [v.id for v in store if "modality_guessed" in v.notes]
    if options.reveal:
        document["revealed"] = _reveal(path, options.reveal)
    if options.verify:
        with progress("verify") as on_progress:
            damaged = store.verify(on_progress)
        document["damaged"] = [{"id": d.id, "file": d.file, "sentence": d.sentence} for d in damaged]
        if damaged:
            document["failed"] = f"{len(damaged)} file(s) of {path} are damaged: delete these items and prepare again"
    return document


def _values(store: Any) -> dict[str, Document]:
    """How the values of the foreground are spread, for each modality, from at most 24 volumes of
    it."""
    import numpy as np

    from wavespark.prepare.overview import axial_slice, histogram

    spread = {}
    for modality in sorted({v.modality for v in store}):
        volumes = [v for v in store if v.modality == modality]
        volumes = volumes[:: -(-len(volumes) // 24)]
        quantiles = [np.quantile(axial_slice(v), (0.001, 0.999)) for v in volumes]
        edges = np.linspace(min(q[0] for q in quantiles), max(q[1] for q in quantiles) + 1e-6, 33)
        shares = histogram(volumes, edges)
        spread[modality] = {"edges": edges.tolist(), "shares": shares.tolist()}
    return spread


def _reveal(path: Path, ids: tuple[str, ...]) -> dict[str, str | None]:
    """Which files ids mean: read from the private list, which stays on the machine."""
    from wavespark.files import read_lines
    from wavespark.prepare.manifest import MANIFEST, SOURCES

    source_of = {r["id"]: r["source_id"] for r in read_lines(path / MANIFEST, strict=True)}
    try:
        paths = {r["id"]: r["path"] for r in read_lines(path / SOURCES, strict=True)}
    except PermissionError:
        raise InputError("permission_denied", f"only the owner of {path} may see which files its ids mean") from None
    return {name: paths.get(source_of.get(name, name)) for name in ids}


def _say_store(document: Document) -> None:
    from wavespark.volumes import Refusal

    recipe = document["recipe"]
    size = " x ".join(map(str, document["median_size"])) or "-"
    say(f"store      {printable(document['path'])}")
    say(f"recipe     {printable(recipe['name'])}, fingerprint {recipe['fingerprint'][:12]}")
    megabytes = f"{document['bytes'] / 1e6:.1f} MB"
    say(f"volumes    {document['volumes']} of {document['patients']} patient(s), {megabytes}, median size {size}")
    for g in document["groups"]:
        plural = "" if g["channels"] == 1 else f", {g['channels']} channels"
        say(f"  {g['volumes']:6d}  {g['modality']} {g['contrast'] or '-'} at {g['spacing_mm']} mm{plural}")
    for modality, spread in document["values"].items():
        for channel, shares in enumerate(spread["shares"]):
            name = f"{modality} channel {channel}" if len(spread["shares"]) > 1 else modality
            say(f"values     {name:12s} {spread['edges'][0]:9.4g} {_bars(shares)} {spread['edges'][-1]:.4g}")
    for code, count in document["notes"].items():
        say(f"  {count:6d}  noted {code}")
    say(f"refused    {len(document['refused'])}")
    say_refusals([Refusal(**r) for r in document["refused"]])
    for name in document.get("guessed", ()):
        say(f"guessed    {name}")
    for name, path in document.get("revealed", {}).items():
        say(f"{printable(name)}  {'is not known here' if path is None else printable(path)}")
    if "damaged" in document:
        say("verified   every file is as it was written" if not document["damaged"] else "verified   damaged:")
        for d in document["damaged"]:
            say(f"  {d['id']} {d['file']}: {d['sentence']}")


def _bars(shares: list[float]) -> str:
    highest = max(shares) or 1.0
    return "".join(" ▁▂▃▄▅▆▇█"[round(8 * share / highest)] for share in shares)


def _is_store(path: Path) -> bool:
    return (path / "store.json").is_file()


def _nothing_to_inspect(path: Path) -> str:
    """The refusal of a path that is no store, run or export; names those right below it."""
    if not path.exists():
        return f"{path} cannot be inspected: there is nothing there"
    below = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    inner = [(p, next((k.name for k in KINDS if k.is_it(p)), None)) for p in below[:1000]]
    named = [f"wavespark inspect {p} ({_with_article(name)})" for p, name in inner if name]
    way_out = f". Below it lie: {'; '.join(named[:8])}" if named else ""
    return f"{path} cannot be inspected: it is no {', '.join(k.name for k in KINDS[:-1])} or {KINDS[-1].name}{way_out}"


def _with_article(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _refuse_store_options(path: Path, kind: str, options: dict[str, object]) -> None:
    for option, value in options.items():
        if value:
            way_out = f" Its pictures: wavespark report {path}" if kind == "run" else ""
            raise SettingsError(
                f"{option} is for a store, and {path} is {_with_article(kind)}, which holds no volumes: give the store.{way_out}"
            )


KINDS: tuple[Kind, ...] = (
    Kind("store", _is_store, _describe_store, _say_store),
    Kind("run", is_run, lambda path, options: describe_run(path, options.verify), say_run),
    Kind("export", is_export, lambda path, options: describe_export(path), say_export),
)
"""Kinds of folders and files that can be inspected, in order of precedence."""


def command(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="Store, run or export: what `prepare`, `pretrain` or `export` wrote.")
    ],
    json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON document.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check every file against its SHA-256 checksum.")] = False,
    reveal: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            help="Show the source path of a volume or refused input; may be repeated. Paths can contain patient names.",
        ),
    ] = None,
    mosaic: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Store only: write a slice of the volumes to a picture (.png) or a page (.html)."
        ),
    ] = None,
    guessed: Annotated[
        bool,
        typer.Option(
            "--guessed", help="Store only: list the volumes whose modality was guessed from the voxel values."
        ),
    ] = False,
) -> None:
    """Show what is in a store, a run or an export.

    Example: `wavespark inspect store --mosaic slices.png`.
    """
    kind = next((k for k in KINDS if k.is_it(path)), None)
    if kind is None:
        raise InputError("no_input", _nothing_to_inspect(path))
    if kind.name != "store":
        _refuse_store_options(path, kind.name, {"--mosaic": mosaic, "--reveal": reveal, "--guessed": guessed})
    document = kind.describe(path, Options(verify, tuple(reveal or ()), mosaic, guessed))
    if json:
        emit_json(document)
    else:
        kind.say(document)
        if mosaic is not None:
            say(f"A slice of each volume: {printable(mosaic)}")
    if document["failed"]:
        fail(document["failed"], ExitCode.FAILED)
