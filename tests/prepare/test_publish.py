import builtins
import errno
import os
import subprocess
import sys
import textwrap

import pytest

from prepare.heads import same_files
from wavespark.errors import StoreError
from wavespark.prepare import lock, open_store, prepare, publish
from wavespark.prepare.publish import UNFINISHED


def test_a_folder_or_file_is_there_whole_or_not_at_all_whatever_call_fails(tmp_path, monkeypatch):
    """Each system call of a publication fails once; what was there before must be there still, or the new one whole."""
    real = {name: getattr(os, name) for name in ("open", "write", "fsync", "rename", "mkdir", "link")}
    for failing in range(40):
        calls = 0
        for name, call in real.items():

            def wrapped(*args, _call=call, _failing=failing, **kwargs):
                nonlocal calls
                calls += 1
                if calls == _failing + 1:
                    raise OSError(errno.ENOSPC, "full")
                return _call(*args, **kwargs)

            monkeypatch.setattr(os, name, wrapped)
        folder, file = tmp_path / f"f{failing}", tmp_path / f"g{failing}"
        done = 0
        for text in (b"old", b"new"):
            try:
                publish.write_folder(folder, {"a": text, "b": text * 1000})
                publish.write_file(file, text)
                done += 1
            except StoreError as error:
                assert "disk is full" in str(error) and "None" not in str(error)
        monkeypatch.undo()
        texts = [(folder / name).read_bytes() for name in ("a", "b")] if folder.exists() else []
        assert texts in ([], [b"old", b"old" * 1000], [b"new", b"new" * 1000])
        assert done == 1 or failing >= calls or texts
        if texts[:1] == [b"new"]:  # the old one could not be removed: the next run does that
            publish.remove_unfinished(tmp_path)
        assert not list(tmp_path.glob(f"{UNFINISHED}*")), failing
    assert calls < 40, "every call was made to fail"


def test_files_are_synced_before_they_get_their_name_and_the_folder_after(tmp_path, monkeypatch):
    events = []
    real_fsync, real_rename, real_write = os.fsync, os.rename, os.write

    def name_of(handle):
        return os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))

    monkeypatch.setattr(os, "write", lambda h, b: events.append(("write", name_of(h))) or real_write(h, b))
    monkeypatch.setattr(os, "fsync", lambda h: events.append(("fsync", name_of(h))) or real_fsync(h))
    monkeypatch.setattr(
        os, "rename", lambda a, b, **k: events.append(("rename", os.path.basename(b))) or real_rename(a, b, **k)
    )
    publish.write_folder(tmp_path / "item", {"a": b"1", "b": b"2"})
    kinds = [kind for kind, _ in events]
    assert kinds == ["write", "fsync", "write", "fsync", "fsync", "rename", "fsync"]
    assert [name for kind, name in events if kind == "write"] == [n for k, n in events if k == "fsync"][:2]
    assert events[-1] == ("fsync", tmp_path.name)


def test_of_several_at_once_one_makes_a_new_file_and_all_agree(tmp_path):
    results = [publish.write_new(tmp_path / "secret", bytes([i]), 0o600) for i in range(3)]
    assert results == [True, False, False]
    assert (tmp_path / "secret").read_bytes() == b"\0"
    assert [p.name for p in tmp_path.iterdir()] == ["secret"]


def test_a_full_disk_is_one_sentence_nothing_is_half_written_and_it_goes_on_later(folder, tmp_path):
    """A real limit on file size, in a process of its own: writing beyond it fails as on a full disk."""
    store = tmp_path / "store"
    script = textwrap.dedent("""
        import resource, signal, sys
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        from pathlib import Path
        from wavespark.prepare import prepare
        from wavespark.errors import StoreError
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        for limit in (100, 700, 3_000, 12_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
            try:
                prepare(sys.argv[1], sys.argv[2])
            except StoreError as error:
                assert not list(Path(sys.argv[2]).rglob(".unfinished-*")), limit
                print(error)
    """)
    run = subprocess.run([sys.executable, "-c", script, folder, store], capture_output=True, text=True, check=False)
    assert run.returncode == 0 and run.stderr == "", run.stderr
    assert run.stdout.count("\n") == run.stdout.count("disk is full") == 4, run.stdout
    assert str(store) in run.stdout
    assert all((item / "record.json").exists() for item in (store / "items").iterdir())
    report = prepare(folder, store)
    assert report.volumes == 5
    assert open_store(store).verify() == ()


def test_a_second_run_on_one_store_is_refused_and_told_who_holds_it(folder, tmp_path):
    store = tmp_path / "store"
    prepare(folder, store)
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from wavespark.prepare.lock import PARTS, hold
        with hold(Path(sys.argv[1]), 0, PARTS // 2):
            print("held", flush=True)
            sys.stdin.read()
    """)
    holder = subprocess.Popen(
        [sys.executable, "-c", script, store / "private"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b"held\n"
        for shard in ((1, 1), (1, 2), (2, 3)):
            with pytest.raises(StoreError, match=f"process {holder.pid} on "):
                prepare(folder, store, shard=shard)
        assert prepare(folder, store, shard=(2, 2)).prepared == 0, "the other half is free"
    finally:
        holder.kill()
        holder.communicate()
    assert prepare(folder, store).already_there == 5, "a lock ends with its process, however it ends"


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), lock.hold(tmp_path):
        raise RuntimeError
    with lock.hold(tmp_path):
        assert builtins.list(tmp_path.glob("holder-*"))
    assert not builtins.list(tmp_path.glob("holder-*"))


def test_a_list_keeps_every_whole_line_when_a_write_was_torn(tmp_path):
    from wavespark.prepare.manifest import MANIFEST, add_lines, read_lines

    (tmp_path / "private").mkdir()
    add_lines(tmp_path, MANIFEST, [{"id": "a"}])
    with (tmp_path / MANIFEST).open("ab") as file:
        file.write(b'{"id": "b", "fil')
    add_lines(tmp_path, MANIFEST, [{"id": "c"}])
    assert [r["id"] for r in read_lines(tmp_path / MANIFEST)] == ["a", "c"]
    assert same_files(tmp_path, tmp_path)


def test_an_append_that_does_not_fit_whole_is_taken_back(tmp_path, monkeypatch):
    real = os.write
    publish.append(tmp_path / "list", b"first\n")

    def half(handle, content):
        if len(content) < 6:
            raise OSError(errno.ENOSPC, "full")
        return real(handle, bytes(content)[:4])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StoreError, match="disk is full"):
        publish.append(tmp_path / "list", b"second\n")
    assert (tmp_path / "list").read_bytes() == b"first\n"
