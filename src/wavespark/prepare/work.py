"""One input to the store: read, make, publish. Runs in a worker process."""

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from wavespark.errors import StoreError, VolumeError
from wavespark.files import Record, write_folder
from wavespark.prepare.beside import Attached, LeftOut, labels_on, read_beside, without_hidden
from wavespark.prepare.fit import NAMES, check_kind
from wavespark.prepare.item import Item, make_item
from wavespark.prepare.item_files import Known, item_files
from wavespark.prepare.recipe import Recipe
from wavespark.volumes import STRUCTURAL, Override, ReadingSettings, Source, Volume, read_source


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of preparing one input."""

    records: tuple[Record, ...] = ()
    """One a published volume."""
    reason: str | None = None
    sentence: str = ""
    """Why the input was refused."""
    left_out: tuple[LeftOut, ...] = ()
    """Label maps and masks that could not be used."""
    failure: str | None = None
    """Why the whole run must stop: the disk is full."""


@dataclass(frozen=True, slots=True)
class Work:
    """Makes the volumes of one source and publishes them."""

    store: Path
    recipe: Recipe
    secret: bytes
    reading: ReadingSettings
    overrides: Mapping[str, Override] = field(default_factory=dict)
    """Source id -> what the user states about it."""
    for_pretraining: bool = False
    """Leave out what is not fit for pre-training: see `prepare.fit`."""
    faults: str = ""
    """The test hook `WAVESPARK_FAULTS`; read by the parent, because a fork server keeps an older
    environment."""

    def __call__(self, source: Source) -> Outcome:
        """Never raises: what goes wrong is part of the outcome."""
        _planted_fault(self.faults, source.relative)
        try:
            stated = self.overrides.get(source.id)
            more = {} if stated is None else {"override": stated}
            volumes = read_source(source, self.secret, self.reading, **more)
            attached = read_beside(source, self.secret, self.reading)
            left_out = list(attached.left_out)
            items = []
            for volume in volumes:
                try:
                    items.append((volume, self._item(source, volume, attached)))
                except VolumeError as error:
                    if error.reason not in NAMES or len(volumes) == 1:
                        raise
                    # The other volumes of the series stay.
                    left_out.append(LeftOut(volume.id, source.paths[0], error.reason, error.sentence))
            if not items:
                raise VolumeError(left_out[-1].reason, left_out[-1].sentence)
            published = []
            for volume, item in items:
                labels, unusable = labels_on(item.size, item.affine, source, attached, self.secret)
                left_out += unusable
                known = Known(labels=labels, targets=dict(source.beside.targets), marks=attached.marks)
                published.append(item_files(item, volume, known, source.id, len(items), self.recipe))
            for record, files in published:
                write_folder(self.store / "items" / record["id"], files)
            return Outcome(tuple(record for record, _ in published), left_out=tuple(left_out))
        except VolumeError as error:
            return Outcome(reason=error.reason, sentence=error.sentence)
        except StoreError as error:
            return Outcome(failure=str(error))
        except MemoryError:
            return Outcome(
                reason="too_large", sentence="it does not fit into the memory of one worker: raise --memory-mb"
            )
        except Exception as error:
            # The text of another library's exception can quote the file: only its kind is kept.
            return Outcome(
                reason="unexpected_error",
                sentence=f"an unexpected {type(error).__name__} happened, a bug of wavespark: please report it",
            )

    def _item(self, source: Source, volume: Volume, attached: Attached) -> Item:
        _left_out(volume, self.recipe)
        stated = self.overrides.get(source.id, Override()).contrast
        if self.for_pretraining:
            check_kind(volume, vouched=stated in STRUCTURAL)
        only_heads = self.for_pretraining and stated not in STRUCTURAL
        return make_item(without_hidden(volume, attached), self.recipe, only_heads=only_heads)


def _left_out(volume: Volume, recipe: Recipe) -> None:
    for note in volume.notes:
        if note in recipe.leave_out:
            raise VolumeError(note, "the recipe leaves such volumes out: see its setting leave_out")


def _planted_fault(faults: str, relative: str) -> None:
    """`crash@item:NAME` kills the worker at that input, `hang@item:NAME` stops it."""
    for fault in faults.split(","):
        kind, _, name = fault.strip().partition("@item:")
        if name and name in (relative, os.path.basename(relative)):
            if kind == "crash":
                os.kill(os.getpid(), signal.SIGKILL)
            elif kind == "hang":
                time.sleep(1e6)
