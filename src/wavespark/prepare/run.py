"""A preparation: find -> leave out what is done -> read, make, publish -> lists.

Can be killed and run again.
"""

import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from wavespark.errors import InputError, SettingsError, StoreError
from wavespark.files import (
    SECRET,
    WHOLE,
    Record,
    encode_line,
    hold,
    read_lines,
    read_secret,
    remove_unfinished,
    wait_for,
    write_file,
    write_new,
    writing,
)
from wavespark.prepare.dask_workers import work_on_cluster
from wavespark.prepare.duplicates import drop_duplicates
from wavespark.prepare.inputs import find_inputs, identity_of, split_done
from wavespark.prepare.manifest import (
    LISTS_LOCK,
    MANIFEST,
    QUARANTINE,
    SOURCES,
    add_lines,
    rewrite,
    rewrite_manifest,
)
from wavespark.prepare.recipe import Recipe, load_recipe, reading_settings
from wavespark.prepare.report import PrepareReport
from wavespark.prepare.store import FORMAT, STORE_FILE, read_recipe
from wavespark.prepare.table import read_table
from wavespark.prepare.work import Outcome, Work
from wavespark.prepare.workers import Limits, Lost, work_through
from wavespark.progress import OnProgress, ignore_progress
from wavespark.text import printable
from wavespark.volumes import Refusal, Source, new_secret, source_id

Shard = tuple[int, int]
Engine = Literal["local", "dask"]

_LOST = {
    "worker_crashed": "reading it ended the worker process {tries} times: the file is damaged, or memory is short",
    "time_limit": "it was not ready after {seconds:g} s: the file is damaged, or --time-limit is too short",
}
_FLUSH_SECONDS = 2.0


def prepare(
    sources: str | Path | Sequence[str | Path],
    output: str | Path,
    recipe: Recipe | str | Path = "head-1mm",
    *,
    workers: int = 0,
    engine: Engine = "local",
    scheduler: str | None = None,
    shard: Shard = (1, 1),
    limits: Limits | None = None,
    table: str | Path | None = None,
    for_pretraining: bool = False,
    on_progress: OnProgress = ignore_progress,
) -> PrepareReport:
    """Makes a store from files and folders, or completes one.

    Inputs that are in the store and have not changed are left alone, so that running it again after
    a stop finishes it. A bad input is named in the quarantine list and left out.

    Args:
        sources: files or folders with DICOM, NIfTI or other volumes.
        output: the store's folder, new or of the same recipe.
        recipe: how; a `Recipe`, the name of one, or a TOML file.
        workers: processes. 0 works in this process, without limits; from 1 on, a script must keep
            its start under `if __name__ == "__main__":`, because workers import it again.
        engine: `local` processes, or `dask`: the workers of a cluster, which share this machine's
            disk.
        scheduler: of dask: its address or scheduler file; None starts a cluster of `workers`
            processes here.
        shard: (i, n) works on the i-th of n parts of the inputs, i from 1; n jobs may share one
            store.
        limits: what one input may cost; only with workers.
        table: CSV with a column `path` and any of `modality`, `contrast`, `patient`, `session`: it
            decides for these inputs.
        for_pretraining: leave out, by name, what is no image of a head (`prepare.fit.NAMES`) and
            duplicates. The command line does so unless `--keep-everything` is given.
        on_progress: called with (done, total, message).

    Raises:
        InputError: if a source itself cannot be used, or holds nothing at all; then no store is
            made.
        StoreError: if the store is locked, of another recipe, or its disk is full.
        SettingsError: if the recipe, the table, the shard, the number of workers or a scheduler
            without dask is not possible.
        DependencyError: if dask is asked for and not installed.
    """
    began = time.monotonic()
    limits = limits or Limits()
    roots = [sources] if isinstance(sources, str | Path) else list(sources)
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    if not 1 <= shard[0] <= shard[1]:
        raise SettingsError(f"shard {shard[0]}/{shard[1]} is not possible: write i/n with i from 1 to n")
    if workers < 0 or not roots:
        raise SettingsError("give at least one source, and 0 or more workers")
    if scheduler is not None and engine != "dask":
        raise SettingsError("--scheduler is for --engine dask")
    reading = reading_settings(recipe.reading)
    inputs = None if table is None else read_table(table)
    for root in roots:
        if not os.path.lexists(root):
            raise InputError("no_input", f"there is nothing at {printable(root)}: check its spelling")
    store = Path(output)
    is_new = not (store / STORE_FILE).exists()
    start, stop = (WHOLE * (shard[0] - 1)) // shard[1], (WHOLE * shard[0]) // shard[1]
    secret = _make_store(store, recipe, replaceable=shard == (1, 1))
    with hold(store / "private" / "lock", partial(_held, store), start=start, stop=stop):
        # What another shard is writing now must stay; what is a day old is nobody's.
        remove_unfinished(store / "items", 0.0 if shard == (1, 1) else 86400.0)
        with _unmade_if_unused(store, is_new and shard == (1, 1)):
            found, refused, paths = find_inputs(
                roots, secret, reading, recipe.dataset, lambda name: start <= int(name[:10], 16) < stop
            )
            if shard == (1, 1) and not found and not refused:
                names = ", ".join(printable(root) for root in roots)
                raise InputError(
                    "no_input", f"there is no volume in {names}: give a folder with DICOM, NIfTI or others"
                )
            overrides = {} if inputs is None else inputs.overrides(found, all_of_them=shard == (1, 1))
        todo, done, duplicates = split_done(store, found, overrides, not for_pretraining)
        journal = _Journal(store, secret, {s.id: identity_of(s, overrides.get(s.id)) for s in found} | paths)
        try:
            for refusal in refused:
                journal.refuse(refusal)
            for name, twin in duplicates.items():
                journal.duplicate(name, twin)
            faults = os.environ.get("WAVESPARK_FAULTS", "")
            work = Work(store.absolute(), recipe, secret, reading, overrides, for_pretraining, faults)
            if engine == "dask":
                outcomes = work_on_cluster(todo, work, scheduler, min(workers, len(todo)), limits, store / "private")
            elif workers:
                outcomes = work_through(todo, work, min(workers, len(todo)), limits)
            else:
                outcomes = ((source, work(source)) for source in todo)
            for source, outcome in _told(todo, outcomes, on_progress):
                journal.note(source, outcome, limits)
        finally:
            journal.flush()
            if shard == (1, 1):
                remove_unfinished(store / "items")
        if for_pretraining:
            with wait_for(store / LISTS_LOCK):
                dropped = drop_duplicates(store)
            for name, twin in dropped.items():
                journal.duplicate(name, twin)
        journal.finish(found)
    manifest = read_lines(store / MANIFEST, strict=True)
    return PrepareReport(
        prepared=len(journal.prepared),
        already_there=len([s for s in done if s.id not in journal.refused]),
        refused=tuple(sorted(journal.refused.values(), key=lambda r: r.source_id)),
        volumes=len(manifest),
        modalities=Counter(record["modality"] for record in manifest),
        modality_guessed=sum("modality_guessed" in record.get("notes", ()) for record in manifest),
        seconds=time.monotonic() - began,
    )


def _make_store(store: Path, recipe: Recipe, *, replaceable: bool) -> bytes:
    """The folders, `store.json` and the secret.

    The recipe of a store that is there must be the same; one without any volume takes the new
    recipe if it is `replaceable`.
    """
    there = read_recipe(store)
    if there is None:
        with writing(store / STORE_FILE):
            store.mkdir(parents=True, exist_ok=True)
            others = {p.name for p in store.iterdir()} - {"items", "private"}
            if any(not name.startswith(".unfinished-") for name in others):
                raise StoreError(f"{store} is not empty and holds no store: give a new folder as --output")
            (store / "private").mkdir(mode=0o700, exist_ok=True)
            (store / "items").mkdir(exist_ok=True)
        write_new(store / STORE_FILE, _store_document(recipe))
        there = read_recipe(store) or recipe
    if there.fingerprint != recipe.fingerprint and replaceable and _holds_nothing(store):
        with hold(store / "private" / "lock", partial(_held, store)):
            if _holds_nothing(store):
                write_file(store / STORE_FILE, _store_document(recipe))
                there = recipe
    if there.fingerprint != recipe.fingerprint:
        changed = "; ".join(recipe.differences(there))
        raise StoreError(
            f"{store} was made with another recipe: {changed}. Use the same recipe, or a new folder as --output"
        )
    write_new(store / SECRET, new_secret().hex().encode(), 0o600)
    return read_secret(store)


def _store_document(recipe: Recipe) -> bytes:
    return encode_line({"format": FORMAT, "recipe": recipe.settings | {"name": recipe.name}})


def _holds_nothing(store: Path) -> bool:
    """True if every input of the store was refused, so that no volume depends on its recipe."""
    items, private = store / "items", store / "private"
    return items.is_dir() and private.is_dir() and not any(items.iterdir())


@contextmanager
def _unmade_if_unused(store: Path, is_new: bool) -> Iterator[None]:
    """Removes the empty store that this run made if its inputs turn out to be unusable."""
    try:
        yield
    except BaseException:
        if is_new and not any((store / "items").iterdir()):
            for name in (STORE_FILE, *(f"private/{p.name}" for p in (store / "private").iterdir())):
                (store / name).unlink(missing_ok=True)
            for folder in (store / "items", store / "private", store):
                with suppress(OSError):  # what somebody else put there stays
                    folder.rmdir()
        raise


def _held(store: Path, holder: str) -> StoreError:
    return StoreError(f"{store} is being prepared by {holder}: wait, or use another --output")


def _told(
    todo: Sequence[Source], outcomes: Iterator[tuple[Source, Outcome | Lost]], on_progress: OnProgress
) -> Iterator[tuple[Source, Outcome | Lost]]:
    """The same outcomes, counted aloud."""
    total = sum(_cost(s) for s in todo) or 1.0
    done = 0.0
    on_progress(done, total, f"{len(todo)} input(s) to prepare, {sum(s.size for s in todo) / 1e6:.0f} MB to read")
    for count, (source, outcome) in enumerate(outcomes if todo else (), 1):
        yield source, outcome
        done += _cost(source)
        on_progress(done, total, f"{count} of {len(todo)} inputs")


def _cost(source: Source) -> float:
    return source.size + 1e5


@dataclass
class _Journal:
    """Results so far, on their way to the lists of the store."""

    store: Path
    secret: bytes
    identities: dict[str, Record]
    mended: set[str] = field(default_factory=set)
    """Label maps that were looked at again: their old refusals go."""
    refused: dict[str, Refusal] = field(default_factory=dict)
    prepared: set[str] = field(default_factory=set)
    """Ids of the sources that became volumes in this run."""
    _lines: dict[str, list[Record]] = field(default_factory=lambda: {MANIFEST: [], QUARANTINE: [], SOURCES: []})
    _flushed: float = field(default_factory=time.monotonic)

    def note(self, source: Source, outcome: Outcome | Lost, limits: Limits) -> None:
        """Takes in what became of a source.

        Raises:
            StoreError: if the run cannot go on.
        """
        if isinstance(outcome, Lost):
            sentence = _LOST[outcome.reason].format(tries=limits.tries, seconds=limits.seconds)
            self.refuse(Refusal(source_id=source.id, reason=outcome.reason, sentence=sentence))
        elif outcome.failure is not None:
            raise StoreError(outcome.failure)
        elif outcome.reason is not None:
            self.refuse(Refusal(source_id=source.id, reason=outcome.reason, sentence=outcome.sentence))
        else:
            self.prepared.add(source.id)
            self._lines[MANIFEST] += outcome.records
            self.mended |= {source_id(self.secret, path) for path in source.beside.paths}
            for map in outcome.left_out:
                self.identities[map.id] = {"id": map.id, "path": os.fsdecode(map.path)}
                self.refuse(Refusal(source_id=map.id, reason=map.reason, sentence=map.sentence))
            self._lines[SOURCES].append(self.identities[source.id])
        if time.monotonic() - self._flushed > _FLUSH_SECONDS:
            self.flush()

    def refuse(self, refusal: Refusal) -> None:
        """Takes in an input that is left out."""
        self.refused[refusal.source_id] = refusal
        self._lines[QUARANTINE].append(_line(refusal))
        if refusal.source_id in self.identities:
            self._lines[SOURCES].append(self.identities[refusal.source_id])

    def duplicate(self, name: str, twin: str) -> None:
        """Takes in an input that holds only what another one holds too."""
        self.prepared.discard(name)
        self.identities[name] = self.identities.get(name, {"id": name}) | {"duplicate_of": twin}
        sentence = f"its voxels are those of {twin}, at the same place. --keep-everything keeps both"
        self.refuse(Refusal(source_id=name, reason="duplicate", sentence=sentence))

    def flush(self) -> None:
        """Adds what is new to the lists, so that a run can be watched."""
        for name, records in self._lines.items():
            add_lines(self.store, name, records)
            records.clear()
        self._flushed = time.monotonic()

    def finish(self, found: Sequence[Source]) -> None:
        """Writes the lists anew: sorted, each key once, without refusals of inputs that are good
        now."""
        rewrite_manifest(self.store)
        rewrite(
            self.store,
            QUARANTINE,
            dict.fromkeys([*(s.id for s in found), *self.mended])
            | {name: _line(r) for name, r in self.refused.items()},
        )
        known = {s.id for s in found} | set(self.refused)
        rewrite(self.store, SOURCES, {name: record for name, record in self.identities.items() if name in known})


def _line(refusal: Refusal) -> Record:
    return {"source_id": refusal.source_id, "reason": refusal.reason, "sentence": refusal.sentence}
