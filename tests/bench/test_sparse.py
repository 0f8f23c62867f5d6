"""The bench of sparse convolutions: its forms compute the same, its verdicts, its words. The figures themselves are in benchmarks/results."""

import json

import pytest
import torch

from wavespark.bench import SparseBench, sparse_memory
from wavespark.bench.cost import Cost
from wavespark.bench.lines import sparse_lines
from wavespark.bench.sparse import _compare, _Form, _scaling, measure_sparse
from wavespark.bench.sparse_forms import (
    BLOCKS,
    LAST,
    PLAIN,
    Scene,
    as_voxels,
    cells_work,
    dense_work,
    visible_cells,
    voxels_work,
)
from wavespark.cli import bench as verb
from wavespark.errors import SettingsError

TINY = SparseBench(size=32, channels=(4,), hidden=(0.6,), rounds=1, most_sites=800)


@pytest.fixture(scope="module")
def document():
    """Measured here; only the memory, which needs a process for each form, is made up."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sparse_memory, "_in_own_process", lambda settings: 1.0 if settings["cell"] else 2.0)
        found = measure_sparse(TINY)
    torch.set_num_threads(threads)
    return json.loads(json.dumps(found))


def test_peak_memory_is_that_of_the_work_in_a_process_of_its_own():
    settings = {"operation": "conv", "size": 64, "channels": 8, "hidden": 0.6, "seed": 0, "cell": 0}
    assert sparse_memory._in_own_process(settings) > 64**3 * 8 * 4 / 2**20


def dense_gradients(scene, visible, cell, name):
    return dense_work(scene, visible, cell, name)()


@pytest.mark.parametrize("cell", [16, 8])
def test_all_forms_of_the_convolution_have_the_gradients_of_the_dense_one(cell):
    torch.manual_seed(0)
    scene, visible = Scene.of(4, 32), visible_cells(32, cell, 0.6, 0)
    shown = as_voxels(visible, cell)
    expected = dense_gradients(scene, visible, cell, PLAIN)
    for found in (dense_gradients(scene, visible, cell, LAST), cells_work(scene, visible, cell, block=False)(),
                  voxels_work(scene, visible, cell, "torch")()):  # fmt: skip
        torch.testing.assert_close(found[1], expected[1], atol=1e-3, rtol=1e-4)
    rows = voxels_work(scene, visible, cell, "torch")()[0]
    torch.testing.assert_close(rows, expected[0].movedim(1, -1)[shown], atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("cell", [16, 8])
def test_a_block_on_cells_has_the_gradients_of_the_exact_dense_form(cell):
    torch.manual_seed(0)
    scene, visible = Scene.of(4, 32), visible_cells(32, cell, 0.6, 0)
    found = cells_work(scene, visible, cell, block=True)()
    expected = dense_gradients(scene, visible, cell, "dense, channels last, exact")
    for a, b in zip(found[1:], expected[1:], strict=True):
        torch.testing.assert_close(a, b, atol=1e-3 * float(b.abs().max()), rtol=1e-3)


def test_every_form_has_its_row_and_the_document_says_what_was_compared(document):
    assert [(r["operation"], r["form"]) for r in document["dense"]] == [
        ("conv", PLAIN),
        ("conv", LAST),
        *[("block", b) for b in BLOCKS],
    ]
    rows = {(r["operation"], r["form"]): r for r in document["results"]}
    assert set(rows) >= {
        ("conv", "cells of 16, 60 % hidden"),
        ("block", "cells of 8, 60 % hidden"),
        ("conv", "voxels by torch, 60 % hidden"),
    }
    assert rows["conv", "cells of 16, 60 % hidden"]["limit"] == pytest.approx(1.10 * 3 / 8)
    assert rows["conv", "cells of 16, 60 % hidden"]["against"] == PLAIN
    assert rows["block", "cells of 8, 60 % hidden"]["against"] in BLOCKS
    assert [(m["operation"], m["form"]) for m in document["memory"]] == [
        (operation, f"cells of {cell}, 60 % hidden") for operation in ("conv", "block") for cell in (16, 8)
    ]
    assert all(m["dense_extra_peak_mb"] > 0 for m in document["memory"])
    assert list(document["sites"]["user_seconds"]) == ["100", "200", "400", "800"]
    assert document["command"] == "wavespark bench sparse --size 32 --rounds 1 --threads 1 --seed 0 --hidden 0.6"


def test_people_read_every_row_and_every_verdict(document):
    text = "\n".join(sparse_lines(document))
    for row in (*document["results"], *document["dense"], *document["memory"]):
        assert row["form"] in text
    assert document["command"] in text
    told = [
        entry["met"] for entry in (*document["results"], *document["memory"], *document["index"], document["sites"])
    ]
    assert text.count("MISSED") >= told.count(False)
    assert max(map(len, text.splitlines())) <= 160


def cost(user):
    return Cost(user=user, wall=user, faults=0)


def test_a_convolution_is_held_against_dense_x_mask_and_a_block_against_the_best_dense_form():
    def form(operation, name, share=1.0, cell=0, limit=None):
        return _Form(operation=operation, form=name, channels=4, work=lambda: None, cell=cell, share=share, limit=limit)

    forms = [form(o, name) for o in ("conv", "block") for name in ("slow", PLAIN, LAST)]
    forms += [form(o, "cells", share=0.4, cell=16, limit=0.44) for o in ("conv", "block")]
    costs = dict(enumerate([[cost(u)] for u in (9, 2, 1, 9, 2, 1, 0.8, 0.8)]))
    conv, block = _compare(forms, costs, 6), _compare(forms, costs, 7)
    assert (conv["against"], conv["user_ratio"], conv["met"], conv["met_against_fastest"]) == (PLAIN, 0.4, True, False)
    assert (block["against"], block["user_ratio"], block["met"]) == (LAST, 0.8, False)


def test_time_that_grows_faster_than_the_sites_misses():
    assert _scaling({100: [cost(1)], 800: [cost(8)]})["met"]
    assert not _scaling({100: [cost(1)], 800: [cost(16)]})["met"]


@pytest.mark.parametrize(
    ("wrong", "words"), [({"size": 40}, "--size 40"), ({"rounds": 0}, "--rounds 0"), ({"hidden": (1.0,)}, "--hidden")]
)
def test_impossible_settings_are_refused_in_the_words_of_the_command_line(wrong, words):
    with pytest.raises(SettingsError, match=words):
        SparseBench(**wrong)


def test_the_verb_prints_and_writes_the_result(monkeypatch, capsys, tmp_path, document):
    asked = []
    monkeypatch.setattr("wavespark.bench.in_clean_process", lambda bench: asked.append(bench) or document)
    options = {"hidden": None, "rounds": 2, "threads": 1, "seed": 0}
    verb.sparse(**options, output=tmp_path / "sparse.json", as_json=True)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "sparse.json").read_text()) == document
    assert asked == [SparseBench(rounds=2)]
    verb.sparse(**options, output=None, as_json=False)
    assert "cells of 16, 60 % hidden" in capsys.readouterr().out
