"""Every input that would become a wrong volume is refused with its one reason."""

import time

import pytest

from peak import no_more_memory_than
from volumes.bad import BAD
from wavespark.volumes import read_volumes


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_refused_with_its_reason(name, tmp_path):
    write, reason = BAD[name]
    write(tmp_path / "in")
    start = time.process_time()
    with no_more_memory_than(700 << 20):
        found = read_volumes(tmp_path / "in")
    assert time.process_time() - start < 5
    assert not found.volumes
    assert reason in {r.reason for r in found.refused}, [(r.reason, r.sentence) for r in found.refused]
    names = [r.source_id for r in found.refused]
    assert len(names) == len(set(names))


def test_the_corpus_is_as_large_as_promised():
    assert len(BAD) >= 60
