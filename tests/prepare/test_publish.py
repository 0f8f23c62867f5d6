import subprocess
import sys
import textwrap

import pytest

from prepare.heads import same_files
from wavespark.errors import StoreError
from wavespark.files import read_lines
from wavespark.prepare import open_store, prepare


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
        from wavespark.errors import StoreError
        from wavespark.files import WHOLE, hold
        with hold(Path(sys.argv[1]) / "lock", StoreError, stop=WHOLE // 2):
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


def test_a_list_keeps_every_whole_line_when_a_write_was_torn(tmp_path):
    from wavespark.prepare.manifest import MANIFEST, add_lines

    (tmp_path / "private").mkdir()
    add_lines(tmp_path, MANIFEST, [{"id": "a"}])
    with (tmp_path / MANIFEST).open("ab") as file:
        file.write(b'{"id": "b", "fil')
    add_lines(tmp_path, MANIFEST, [{"id": "c"}])
    assert [r["id"] for r in read_lines(tmp_path / MANIFEST, strict=True)] == ["a", "c"]
    assert same_files(tmp_path, tmp_path)
