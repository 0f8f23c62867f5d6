"""Whole held-out slices, as the report shows them."""

import json
from pathlib import Path

import numpy as np
from safetensors import safe_open

from engine.small import small_settings
from wavespark.engine import pretrain
from wavespark.engine.run.building import choose_split
from wavespark.engine.watching.whole import SLICES, choose_region, tile_starts
from wavespark.prepare import Store


def test_a_finished_run_shows_whole_slices_that_no_training_crop_touched(mr_store: Store, tmp_path: Path) -> None:
    settings = small_settings()
    summary = pretrain(settings, mr_store, tmp_path / "run")
    files = list((tmp_path / "run" / "examples").glob("whole_*.safetensors"))
    assert [f.name for f in files] == [f"whole_{summary.steps:08d}.safetensors"]
    with safe_open(files[0], framework="np") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(file.metadata()["whole"])

    split = choose_split(settings, mr_store)
    region, axis = choose_region(mr_store, split)
    assert (about["axis"], about["volume"]) == (axis, region.volume)
    starts = tile_starts(region, settings.data.crop, axis)
    assert len(starts) == about["crops"]
    volume = mr_store[region.volume].read()
    first = np.min(starts, axis=0)
    for k, share in enumerate(SLICES):
        at = first[axis] + int(share * settings.data.crop[axis])
        assert region.start[axis] <= at < region.start[axis] + region.size[axis]
        here = np.take(volume, at, axis=axis + 1)
        across = [a for a in range(3) if a != axis]
        shown = read["original"][k]
        begin = [max(0, -first[a]) for a in across]  # the crops reach over the volume's border
        inside = shown[:, begin[0] : begin[0] + here.shape[1], begin[1] : begin[1] + here.shape[2]]
        assert np.array_equal(inside, here[:, : inside.shape[1], : inside.shape[2]])

    seen = (read["visible"] == 1)[:, None]
    for name in ("reconstruction", "harmonic"):
        assert np.array_equal(read[name][seen], read["original"][seen])
        assert not np.array_equal(read[name], read["original"])
    assert not np.array_equal(read["reconstruction"], read["harmonic"])
    assert about["normalised_loss"] > 0
    assert about["harmonic_own_mean"] > 0
