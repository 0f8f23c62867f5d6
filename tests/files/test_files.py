"""Files are written whole or not at all, lists are read to the line, a lock names its holder."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from wavespark.errors import CheckpointError, StoreError
from wavespark.files import UNFINISHED, WHOLE, hold, publish, read_lines, read_secret


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


def test_a_lock_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), hold(tmp_path / "lock", StoreError):
        raise RuntimeError
    with hold(tmp_path / "lock", StoreError):
        assert f'"pid": {os.getpid()}' in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_bytes() == b""


HOLDER = textwrap.dedent("""
    import sys
    from pathlib import Path
    from wavespark.errors import StoreError
    from wavespark.files import hold
    start, stop = map(int, sys.argv[2:])
    with hold(Path(sys.argv[1]), StoreError, start=start, stop=stop):
        print("held", flush=True)
        sys.stdin.read()
""")


def holder(path, start, stop):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path, str(start), str(stop)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout.readline() == b"held\n"
    return process


def test_the_holder_that_is_named_is_the_one_that_still_holds_the_range_and_not_one_that_has_gone(tmp_path):
    path, half = tmp_path / "lock", WHOLE // 2
    stays, goes = holder(path, 0, half), holder(path, half, WHOLE)
    try:
        with pytest.raises(CheckpointError, match=f"^process {goes.pid} on "), hold(path, CheckpointError, start=half):
            pass
        goes.communicate(b"")
        with pytest.raises(CheckpointError, match=f"^process {stays.pid} on "), hold(path, CheckpointError):
            pass
        with hold(path, CheckpointError, start=half):
            assert path.stat().st_mode & 0o777 == 0o600
    finally:
        stays.kill()
        stays.communicate()
        goes.kill()


def test_a_damaged_line_is_refused_or_ends_the_list_as_asked_and_a_torn_end_is_passed_over(tmp_path):
    path = tmp_path / "list.jsonl"
    assert read_lines(path, strict=True) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": 3')
    assert read_lines(path, strict=True) == read_lines(path, strict=False) == [{"a": 1}, {"a": 2}]
    for damaged in ("{", "3", '{"a": NaN}', '{"a": 1e999}', "\x00", "[" * 100_000):
        path.write_text(f'{{"a": 1}}\n{damaged}\n{{"a": 3}}\n')
        assert read_lines(path, strict=False) == [{"a": 1}]
        with pytest.raises(StoreError, match="line 2 is damaged"):
            read_lines(path, strict=True)


def test_a_store_without_its_secret_says_what_to_do(tmp_path):
    with pytest.raises(StoreError, match=r"private/secret cannot be read.*: use the column `id`$"):
        read_secret(tmp_path, "use the column `id`")
