"""Every input that would become a wrong volume is refused with its one reason."""

import resource
import time

import pytest

from volumes.bad import BAD
from wavespark.volumes import read_volumes


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_refused_with_its_reason(name, tmp_path):
    write, reason = BAD[name]
    write(tmp_path / "in")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    found = read_volumes(tmp_path / "in")
    assert time.process_time() - start < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700 * 1024
    assert not found.volumes
    assert reason in {r.reason for r in found.refused}, [(r.reason, r.sentence) for r in found.refused]
    names = [r.source_id for r in found.refused]
    assert len(names) == len(set(names))


def test_the_corpus_is_as_large_as_promised():
    assert len(BAD) >= 60
