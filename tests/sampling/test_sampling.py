"""Crops: functions of (seed, draw), of the training part only, changed in ways that keep their meaning."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.small import make_store
from wavespark.errors import SettingsError, StoreError, TrainingStopped
from wavespark.sampling import CropDataset, Region, batches, collate, read_crop, split_store
from wavespark.sampling.augment import Augmentation
from wavespark.sampling.crops import Crop, random_crop

SIZE = (32, 32, 32)


@dataclass
class Coordinates:
    """A volume whose voxels say where they lie, in three channels; stands in for a stored one."""

    size: tuple[int, int, int]
    id: str = "v"
    patient: str = "p"
    content: str = "c"
    modality: str = "MR"
    contrast: str | None = "T1"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    touched: list = field(default_factory=list)

    def read(self, start, size):
        assert all(a >= 0 and n > 0 and a + n <= s for a, n, s in zip(start, size, self.size, strict=True))
        self.touched.append((start, size))
        axes = [np.arange(a, a + n, dtype=np.float32) for a, n in zip(start, size, strict=True)]
        return np.stack(np.meshgrid(*axes, indexing="ij"))

    def read_foreground(self, start, size):
        return np.ones(size, dtype=bool)


def dataset(store, seed=3, batch=2, augmentation=None, **more):
    split = split_store(store, SIZE, 0.1, 3)
    augmentation = augmentation or Augmentation()
    return CropDataset(store, split.training, crop=SIZE, batch=batch, seed=seed, augmentation=augmentation, **more)


def same(a: Crop, b: Crop) -> bool:
    return (
        np.array_equal(a.voxels, b.voxels)
        and np.array_equal(a.foreground, b.foreground)
        and (a.volume, a.start, a.modality) == (b.volume, b.start, b.modality)
    )


def test_a_sample_is_a_function_of_seed_and_draw_in_any_order(mixed_store):
    forwards = [dataset(mixed_store)[draw][1] for draw in range(8)]
    made = dataset(mixed_store)
    backwards = [made[draw][1] for draw in reversed(range(8))][::-1]
    assert all(same(a, b) for a, b in zip(forwards, backwards, strict=True))
    assert len({(c.volume, c.start) for c in forwards}) > 4
    others = [dataset(mixed_store, seed=4)[draw][1] for draw in range(8)]
    assert not any(same(a, b) for a, b in zip(forwards, others, strict=True))


def test_samples_do_not_depend_on_the_number_of_workers(mixed_store):
    made = [list(batches(dataset(mixed_store), start=2, stop=5, workers=w)) for w in (0, 1, 2)]
    for other in made[1:]:
        for a, b in zip(made[0], other, strict=True):
            assert torch.equal(a.voxels, b.voxels) and torch.equal(a.foreground, b.foreground)
            assert (a.draws, a.mask_keys, a.modality) == (b.draws, b.mask_keys, b.modality)
    assert [b.draws for b in made[0]] == [(4, 5), (6, 7), (8, 9)]


def test_a_batch_that_is_kept_is_not_overwritten_by_the_next(mixed_store):
    """Loader processes use their shared memory again."""
    alone, kept = (list(batches(dataset(mixed_store), start=0, stop=40, workers=w)) for w in (0, 2))
    for a, b in zip(alone, kept, strict=True):
        assert torch.equal(a.voxels, b.voxels) and torch.equal(a.foreground, b.foreground)
        assert not b.voxels.is_shared()


def test_starting_late_gives_the_batches_that_starting_early_gives(mixed_store):
    early = list(batches(dataset(mixed_store), start=0, stop=6, workers=0))[4:]
    late = list(batches(dataset(mixed_store), start=4, stop=6, workers=0))
    assert all(torch.equal(a.voxels, b.voxels) for a, b in zip(early, late, strict=True))


def test_the_ranks_of_a_distributed_run_share_out_each_batch(mixed_store):
    whole = list(batches(dataset(mixed_store, batch=4), start=0, stop=3, workers=0))
    ranks = [list(batches(dataset(mixed_store, batch=4), start=0, stop=3, workers=0, rank=r, world=2)) for r in (0, 1)]
    for k, batch in enumerate(whole):
        assert sorted(ranks[0][k].draws + ranks[1][k].draws) == list(batch.draws)
        assert ranks[0][k].modality == ranks[1][k].modality == batch.modality
        assert torch.equal(torch.stack([ranks[0][k].voxels, ranks[1][k].voxels], 1).flatten(0, 1), batch.voxels)


def test_batches_are_of_one_modality_and_both_modalities_come(mixed_store):
    seen = list(batches(dataset(mixed_store), start=0, stop=30, workers=0))
    assert {b.modality for b in seen} == {"MR", "CT"}
    for b in seen:
        assert b.voxels.shape == (2, 1 if b.modality == "MR" else 3, *SIZE)
        assert b.voxels.dtype == torch.float32 and b.foreground.dtype == torch.bool
        assert len(set(b.mask_keys)) == 2


def test_weights_decide_how_often_a_modality_comes(mixed_store):
    made = dataset(mixed_store, weights={"MR": 1.0, "CT": 3.0})
    share = np.mean([made.modality_of(n) == "CT" for n in range(2000)])
    assert abs(share - 0.75) < 0.04
    only = dataset(mixed_store, weights={"MR": 1.0, "CT": 0.0})
    assert {only.modality_of(n) for n in range(200)} == {"MR"}
    for wrong in ({"Mr": 1.0}, {"MR": 1.0}, {"MR": 0.0, "CT": 0.0}):
        with pytest.raises(SettingsError, match="CT and MR"):
            dataset(mixed_store, weights=wrong)


SIDES = st.integers(1, 90)


@settings(max_examples=150, deadline=None)
@given(size=st.tuples(SIDES, SIDES, SIDES), crop=st.tuples(*[st.integers(1, 40)] * 3), seed=st.integers(0, 2**40))
def test_no_training_crop_touches_a_held_out_voxel(size, crop, seed):
    volume = Coordinates(size)
    try:
        split = split_store([volume], crop, 0.1, seed)
    except StoreError:
        assert size[1] < 2 * crop[1]
        return
    (train,), (out,) = split.training, split.held_out
    held = {(train.start[1] + train.size[1], size[1])}
    assert held == {(out.start[1], out.start[1] + out.size[1])} and out.size[1] == crop[1]
    rng = np.random.default_rng(seed)
    for region, inside in ((train, range(out.start[1])), (out, range(out.start[1], size[1]))):
        volume.touched.clear()
        for _ in range(4):
            made = random_crop(volume, region, crop, rng)
            assert made.voxels.shape == (3, *crop) and made.foreground.shape == crop
        for start, extent in volume.touched:
            assert start[1] in inside and start[1] + extent[1] - 1 in inside


@settings(max_examples=60, deadline=None)
@given(patients=st.integers(1, 40), seed=st.integers(0, 1000), data=st.data())
def test_no_patient_of_whom_a_volume_is_held_out_whole_is_trained_on(patients, seed, data):
    kinds = [("MR", "T1"), ("MR", "T2"), ("CT", None)]
    volumes = []
    for p in range(patients):
        for n in range(data.draw(st.integers(1, 3))):
            modality, contrast = data.draw(st.sampled_from(kinds))
            size = (32, data.draw(st.sampled_from([40, 80])), 32)
            names = {"id": f"{p}.{n}", "patient": f"p{p}", "content": f"{p * 7919 % 1000:03d}.{n}"}
            volumes.append(Coordinates(size, modality=modality, contrast=contrast, **names))
    try:
        split = split_store(volumes, SIZE, 0.2, seed)
    except StoreError:
        return
    by_id = {v.id: v for v in volumes}
    trained = {r.volume: r for r in split.training}
    whole = {r.volume for r in split.held_out} - set(trained)
    assert {by_id[i].patient for i in whole}.isdisjoint({by_id[i].patient for i in trained})
    assert set(trained) | whole == set(by_id)
    for r in split.held_out:
        if r.volume in trained:
            kind = (by_id[r.volume].modality, by_id[r.volume].contrast)
            assert kind not in {(by_id[i].modality, by_id[i].contrast) for i in whole}, "patients are enough"
            assert trained[r.volume].start[1] + trained[r.volume].size[1] <= r.start[1]
    again = split_store(list(reversed(volumes)), SIZE, 0.2, seed)
    assert set(again.held_out) == set(split.held_out) and set(again.training) == set(split.training)


def test_a_crop_holds_the_voxels_of_its_place_and_beyond_the_region_the_smallest_value_and_no_foreground():
    volume = Coordinates((10, 20, 30))
    region = Region(volume="v", start=(0, 4, 0), size=(10, 12, 30))
    crop = read_crop(volume, region, (-3, 2, 25), (16, 16, 8))
    inside = np.zeros((16, 16, 8), bool)
    inside[3:13, 2:14, :5] = True
    d, h, w = np.meshgrid(np.arange(-3, 13), np.arange(2, 18), np.arange(25, 33), indexing="ij")
    assert np.array_equal(crop.foreground, inside)
    for channel, axis in enumerate((d, h, w)):
        assert np.array_equal(crop.voxels[channel][inside], axis[inside])
        assert set(crop.voxels[channel][~inside]) == {axis[inside].min()}
    whole = read_crop(volume, region, (0, 4, 0), (10, 12, 30))
    assert whole.foreground.all() and whole.voxels[1].min() == 4 and whole.voxels[1].max() == 15


def test_a_crop_larger_than_its_region_is_centred():
    volume = Coordinates((10, 20, 30))
    crop = random_crop(
        volume, Region(volume="v", start=(0, 0, 0), size=volume.size), (16, 20, 8), np.random.default_rng(0)
    )
    assert crop.foreground.any((1, 2)).nonzero()[0].tolist() == list(range(3, 13))


def test_every_place_of_a_region_is_drawn():
    volume = Coordinates((8, 20, 8))
    region = Region(volume="v", start=(0, 4, 0), size=(8, 12, 8))
    rng = np.random.default_rng(0)
    places = {random_crop(volume, region, (6, 6, 8), rng).start for _ in range(400)}
    assert places == {(d, h, 0) for d in range(3) for h in range(4, 11)}


def a_crop(modality="MR", channels=1):
    rng = np.random.default_rng(0)
    return Crop(
        voxels=rng.standard_normal((channels, 6, 7, 8)).astype(np.float32),
        foreground=rng.random((6, 7, 8)) < 0.5,
        volume="v",
        content="c",
        modality=modality,
        contrast=None,
        start=(0, 0, 0),
        spacing=(1.0, 1.0, 1.0),
    )


NOTHING = Augmentation(flip=0, scale=0, shift=0, noise=0)
CHANGES = {"flip": 0.9, "scale": 0.3, "shift": 0.3, "noise": 0.2}


@pytest.mark.parametrize("name", CHANGES)
def test_each_augmentation_changes_the_image_and_leaves_the_draws_of_the_others_alone(name):
    crop = a_crop()
    for seed in range(5):
        draw = lambda s, seed=seed: s(crop, np.random.default_rng(seed)).voxels  # noqa: E731
        assert np.array_equal(draw(NOTHING), crop.voxels)
        assert not np.array_equal(draw(replace(NOTHING, **{name: CHANGES[name]})), crop.voxels)
        everything, others = Augmentation(**CHANGES), Augmentation(**CHANGES | {name: 0})
        if name == "shift":
            rest = draw(everything) - draw(others)
            assert np.ptp(rest) < 1e-5 and abs(rest.mean()) <= 0.3
        elif name == "noise":
            assert 0 < np.std(draw(everything) - draw(others)) < 0.25
        elif name == "scale":
            a, b = (draw(replace(s, noise=0)).ravel() for s in (everything, others))
            assert abs(np.corrcoef(a, b)[0, 1] - 1) < 1e-5


def test_flips_move_voxels_and_foreground_together():
    crop = a_crop()
    crop = replace(crop, voxels=crop.foreground[None].astype(np.float32))
    seen = set()
    for seed in range(60):
        made = Augmentation(flip=0.5, scale=0, shift=0, noise=0)(crop, np.random.default_rng(seed))
        assert np.array_equal(made.voxels[0] > 0, made.foreground)
        assert made.voxels.flags["C_CONTIGUOUS"] and made.foreground.flags["C_CONTIGUOUS"]
        seen.add(made.foreground.tobytes())
    assert len(seen) == 8


def test_the_values_of_ct_keep_their_meaning():
    crop = a_crop("CT", 3)
    made = Augmentation(flip=0, scale=0.5, shift=0.5, noise=0)(crop, np.random.default_rng(1))
    assert np.array_equal(made.voxels, crop.voxels)
    noisy = Augmentation(flip=0, scale=0.5, shift=0.5, noise=0.02)(crop, np.random.default_rng(1))
    assert 0 < np.abs(noisy.voxels - crop.voxels).max() < 0.2


def test_a_mask_key_depends_on_content_and_draw_and_not_on_the_stores_secret(tmp_path, mr_store):
    other = make_store(tmp_path, ("MR",))
    assert other[0].id != mr_store[0].id
    keys = [collate([dataset(s)[d] for d in (0, 1)]).mask_keys for s in (mr_store, other)]
    assert keys[0] == keys[1] == tuple(f"{mr_store[0].content}:{d}" for d in (0, 1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_item_is_an_error_that_names_it_without_a_traceback(tmp_path, workers):
    store = make_store(tmp_path, ("MR",))
    (store.path / "items" / store[0].id / "voxels.b2nd").write_bytes(b"damaged")
    with pytest.raises(StoreError, match=f"voxels.b2nd of item {store[0].id} is damaged") as caught:
        list(batches(dataset(store), start=0, stop=4, workers=workers))
    assert "Traceback" not in str(caught.value)


class Deadly(CropDataset):
    """Kills the process that reads draw 5."""

    def __getitem__(self, draw):
        if draw == 5:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(draw)


def test_a_killed_loader_process_is_named_with_what_it_read(mr_store):
    made = dataset(mr_store)
    deadly = Deadly(mr_store, made.of_modality["MR"], crop=SIZE, batch=2, seed=3, augmentation=Augmentation())
    with pytest.raises(TrainingStopped, match=rf"loader process \(\d+\) died.*{mr_store[0].id}") as caught:
        list(batches(deadly, start=0, stop=4, workers=1))
    assert caught.value.exit_code == 1


def test_five_patients_are_enough_to_hold_out_one_whatever_chance_says():
    """Volumes too short for a slab, of which chance would hold out none for most seeds."""
    volumes = [
        Coordinates((32, 40, 32), modality="MR", contrast="T1", id=f"v{p}", patient=f"p{p}", content=f"{p:03d}")
        for p in range(5)
    ]
    for seed in range(200):
        split = split_store(volumes, (32, 32, 32), 0.05, seed)
        assert 1 <= len(split.held_out) <= 3 and len(split.training) + len(split.held_out) == 5
