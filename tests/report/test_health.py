"""Health of levels and probes on the page; anything may be missing."""

import pytest

from wavespark.report.health import levels, probes


def record(first, last):
    class Record:
        pass

    made = Record()
    made.first, made.last = first, last
    return made


def level(stride, rank):
    return {"stride": stride, "feature_std": 0.5, "effective_rank": rank, "alignment": None}


def test_every_level_stands_with_its_start_and_its_end():
    page = str(levels(record({"levels": [level(2, 9.0), level(4, 31.0)]}, {"levels": [level(2, 7.0), level(4, 21.0)]})))
    for figure in ("9.00", "7.00", "31.0", "21.0", "not recorded"):
        assert figure in page
    assert page.index("31.0") < page.index("21.0")


def test_a_probe_stands_with_chance_and_interval():
    found = {"label": "<b>contrast", "chance": 0.25, "knn": {"value": 0.5, "low": 0.4, "high": 0.62}}
    page = str(probes(record({}, {"probe": found})))
    for figure in ("0.500", "0.400 to 0.620", "0.250", "&lt;b&gt;contrast", "not recorded"):
        assert figure in page


@pytest.mark.parametrize("last", [{}, {"levels": None}, {"levels": [3, None]}, {"probe": []}, {"probe": {"knn": 1}}])
def test_what_is_missing_or_wrong_gives_no_table(last):
    assert levels(record({}, last)) is None and probes(record({}, last)) is None


def test_a_probe_that_random_weights_solved_and_that_fell_is_explained():
    before = {"label": "contrast", "knn": {"value": 1.0}, "linear": {"value": 1.0}}
    now = {
        "label": "contrast",
        "knn": {"value": 0.83, "low": 0.7, "high": 0.95},
        "linear": {"value": 1.0, "low": 1.0, "high": 1.0},
    }
    page = str(probes(record({"probe": before}, {"probe": now})))
    assert "Random weights already told the contrast (balanced accuracy 1.00)" in page
    assert "It fell from 1.00 to 0.830, which is more than the noise" in page
    assert "wavespark probe" in page

    now["knn"]["high"] = 1.0
    assert "which is within the noise" in str(probes(record({"probe": before}, {"probe": now})))


def test_a_probe_that_rose_needs_no_explanation():
    before, now = {"knn": {"value": 0.4}}, {"knn": {"value": 0.6, "low": 0.5, "high": 0.7}}
    page = str(probes(record({"probe": before}, {"probe": now})))
    assert "fell" not in page
    assert "Random weights" not in page
