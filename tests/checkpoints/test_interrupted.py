"""Promises R2, R3 and R5: a checkpoint that is interrupted at any call to the system leaves the one before; nothing is renamed before the disk has it."""

import errno
import os
import warnings

import pytest
import torch

from wavespark.checkpoints import Checkpoint, checkpoint_folders, newest_checkpoint, prune, write_checkpoint
from wavespark.errors import StoreError

CALLS = ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir")


def checkpoint(step):
    g = torch.Generator().manual_seed(step)
    return Checkpoint(
        step=step,
        model={"a": torch.randn(30, 40, generator=g)},
        optimizer={"a.exp_avg": torch.randn(30, 40, generator=g)},
        state={"seconds": 1.0},
    )


def save(folder, step):
    write_checkpoint(folder, checkpoint(step))
    prune(folder, keep=2, step=step)


class Watched:
    """Counts the calls that change the disk, and does something instead of, or after, a chosen one."""

    def __init__(self, monkeypatch, act=lambda name: None, at=-1, after=False):
        self.calls = 0
        for name in CALLS:
            monkeypatch.setattr(os, name, self._watch(name, getattr(os, name), act, at, after))

    def _watch(self, name, right, act, at, after):
        def call(*arguments, **named):
            reads = name == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR)
            if not reads:
                self.calls += 1
            chosen = not reads and self.calls - 1 == at
            if chosen and not after:
                act(name)
            result = right(*arguments, **named)
            if chosen and after:
                act(name)
            return result

        return call


@pytest.fixture
def before(tmp_path):
    for step in (1, 2):
        save(tmp_path / "checkpoints", step)
    return tmp_path / "checkpoints"


def count(folder):
    with pytest.MonkeyPatch.context() as patch:
        watched = Watched(patch)
        save(folder, 3)
    return watched.calls


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_every_call_the_checkpoint_before_survives(before, tmp_path, after):
    total = count(tmp_path / "other") + 12  # and the removal of the oldest
    died = 0
    for at in range(total):
        folder = tmp_path / f"run-{at}"
        for step in (1, 2):
            save(folder, step)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            try:
                with pytest.MonkeyPatch.context() as patch:
                    Watched(patch, lambda name: os._exit(9), at, after)
                    save(folder, 3)
            finally:
                os._exit(0)
        died += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        found = newest_checkpoint(folder, pytest.fail)
        assert found.step in (2, 3)
        assert torch.equal(found.model["a"], checkpoint(found.step).model["a"])
        save(folder, 4)  # what was left half-done is in nobody's way
        assert sorted(p.name for p in folder.iterdir()) == [f.name for f in checkpoint_folders(folder)][::-1]
        assert newest_checkpoint(folder, pytest.fail).step == 4
    assert died >= 20


def test_every_byte_is_on_the_disk_before_its_name(before, monkeypatch):
    open_, fsync, rename = os.open, os.fsync, os.rename
    paths, synced, events = {}, set(), []

    def watched_open(path, *arguments, **named):
        handle = open_(path, *arguments, **named)
        paths[handle] = str(path)
        return handle

    def watched_fsync(handle):
        fsync(handle)
        synced.add(paths[handle])
        events.append(("fsync", paths[handle]))

    def watched_rename(source, target, **named):
        source = str(source)
        if "step_00000003" in source:  # the publication
            inside = {str(before.joinpath(source, name)) for name in os.listdir(source)}
            assert len(inside) == 4
            assert inside <= synced, "a file was renamed before it was on the disk"
            assert source in synced, "the names in the folder were not on the disk"
        rename(source, target, **named)
        events.append(("rename", str(target)))

    monkeypatch.setattr(os, "open", watched_open)
    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "rename", watched_rename)
    save(before, 3)
    published = events.index(("rename", str(before / "step_00000003")))
    assert ("fsync", str(before)) in events[published:]
    removals = [i for i, (kind, path) in enumerate(events) if kind == "rename" and "step_00000001" in path]
    assert removals and min(removals) > published, "an old one was removed before the new one was there"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_at_any_write_is_a_sentence_and_leaves_nothing_half_written(before, tmp_path, code):
    total = count(tmp_path / "other")

    refused = 0

    def full(name):
        raise OSError(code, os.strerror(code))

    for at in range(total + 2):
        folder = tmp_path / f"full-{at}"
        for step in (1, 2):
            save(folder, step)
        with pytest.MonkeyPatch.context() as patch:
            Watched(patch, full, at)
            try:
                save(folder, 3)
            except StoreError as error:
                assert "disk is full" in str(error)
                refused += 1
        newest = newest_checkpoint(folder, pytest.fail).step
        assert newest in (2, 3)
        if newest == 2:
            assert sorted(p.name for p in folder.iterdir()) == ["step_00000001", "step_00000002"]
    assert refused >= 15


def test_those_of_every_nth_step_are_kept_for_good(tmp_path):
    for step in range(1, 9):
        write_checkpoint(tmp_path, checkpoint(step))
        prune(tmp_path, keep=2, step=step, keep_every=3)
    assert [f.name for f in checkpoint_folders(tmp_path)] == [f"step_{s:08d}" for s in (8, 7, 6, 3)]
