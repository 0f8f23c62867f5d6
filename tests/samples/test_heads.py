"""Synthetic heads are what their seed says, and their labels are true."""

import numpy as np
import pytest

from wavespark.errors import SettingsError
from wavespark.samples import LABELS, LOCATIONS, SITES, Aneurysm, synthetic_head

SMALL = {"shape": (48, 48, 40), "spacing": (2.0, 2.0, 2.0)}


@pytest.fixture(scope="module")
def cta():
    return synthetic_head(11, "CTA", shape=(128, 64, 88), aneurysm=Aneurysm("Middle Cerebral Artery", "Left", 7.0))


def test_the_labels_stand_in_the_order_of_the_challenge():
    assert LABELS == (
        "Left Infraclinoid Internal Carotid Artery",
        "Right Infraclinoid Internal Carotid Artery",
        "Left Supraclinoid Internal Carotid Artery",
        "Right Supraclinoid Internal Carotid Artery",
        "Left Middle Cerebral Artery",
        "Right Middle Cerebral Artery",
        "Anterior Communicating Artery",
        "Left Anterior Cerebral Artery",
        "Right Anterior Cerebral Artery",
        "Left Posterior Communicating Artery",
        "Right Posterior Communicating Artery",
        "Basilar Tip",
        "Other Posterior Circulation",
        "Aneurysm Present",
    )
    assert tuple(synthetic_head(0, shape=(8, 8, 8)).labels) == LABELS


@pytest.mark.parametrize("contrast", ["CTA", "T1"])
def test_a_seed_is_one_head_to_the_bit(contrast):
    first, again, other = (synthetic_head(s, contrast, aneurysm="random", **SMALL) for s in (5, 5, 6))
    assert np.array_equal(first.voxels, again.voxels)
    assert np.array_equal(first.aneurysm, again.aneurysm)
    assert first.sac == again.sac
    assert not np.array_equal(first.voxels, other.voxels)


@pytest.mark.parametrize("contrast", ["CTA", "TOF-MRA"])
def test_a_counterfactual_differs_only_around_the_sac(contrast):
    grid = {"shape": (64, 64, 24), "spacing": (0.9, 0.9, 3.0)}
    without, head = (
        synthetic_head(3, contrast, aneurysm=a, **grid) for a in (None, Aneurysm("Basilar Tip", None, 6.0))
    )
    changed = np.argwhere(without.voxels != head.voxels)
    centre, diameter = head.sac
    away = np.linalg.norm((changed * head.spacing + head.affine[:3, 3]) - centre, axis=1)
    assert len(changed) > 30
    assert away.max() < diameter + 3.5, "the sac, a daughter lobe, the blur and one thick slice"
    assert np.array_equal(
        without.vessels[~head.aneurysm & (head.vessels == 0)], head.vessels[~head.aneurysm & (head.vessels == 0)]
    )
    assert without.sac is None and not without.aneurysm.any() and sum(without.labels.values()) == 0


@pytest.mark.parametrize("location", LOCATIONS)
def test_a_sac_is_labelled_where_it_is(location):
    site = next(s for s in SITES if location.endswith(s))
    side = location.removesuffix(site).strip() or None
    head = synthetic_head(
        21, "TOF-MRA", shape=(64, 64, 64), spacing=(1.25, 1.25, 1.25), aneurysm=Aneurysm(site, side, 7.5)
    )
    assert [name for name, on in head.labels.items() if on] == [location, "Aneurysm Present"]
    marked = np.argwhere(head.aneurysm) + 0.0
    assert len(marked) > 45, f"only {len(marked)} voxels of the 113 that a sac of 7.5 mm fills stand out of its artery"
    x = (marked @ head.affine[:3, :3].T + head.affine[:3, 3]).mean(axis=0)
    assert np.linalg.norm(x - head.sac[0]) < 2.5
    if side is not None:
        assert x[0] > -3 if side == "Right" else x[0] < 3, "x grows to the right; the head may lie 2.5 mm off"


def test_sides_swap_when_the_side_is_swapped():
    left, right = (
        synthetic_head(4, shape=(96, 64, 64), aneurysm=Aneurysm("Middle Cerebral Artery", s, 8.0))
        for s in ("Left", "Right")
    )
    assert np.argwhere(left.aneurysm)[:, 0].mean() < 48 < np.argwhere(right.aneurysm)[:, 0].mean()


def test_up_is_up_and_front_is_front():
    whole = {"shape": (60, 96, 90), "spacing": (3.2, 2.4, 2.4)}
    body = synthetic_head(2, "CTA", **whole).voxels > -500
    assert not body[:, :, -1].any() and body[:, :, 0].any(), "air above the head, neck below"
    fluid = synthetic_head(2, "T2", **whole).voxels > 560
    eyes = np.argwhere(fluid[:, 72:, 24:44])
    assert len(eyes) > 50, "two globes of 7 ml in front"


def test_hounsfield_units_are_those_of_a_head(cta):
    v = cta.voxels
    artery = v[(cta.vessels == 1) & ~cta.aneurysm & (v < 500)]  # less those in bone and calcified ones
    assert abs(np.median(v[20:108, :, 70:]) - 35) < 6, "brain"
    assert 250 < np.percentile(v[cta.aneurysm], 75) < 400, "sac"
    assert 250 < np.percentile(artery, 75) < 400, "artery"
    bone = v[v > 500]
    assert 700 < np.median(bone) < 1500
    assert v.min() >= -1024 and np.array_equal(v, np.rint(v)) and v.dtype == np.float32


def test_an_artery_is_the_brightest_thing_in_time_of_flight():
    head = synthetic_head(9, "TOF-MRA", shape=(96, 96, 64))
    assert np.median(head.voxels[head.vessels == 1]) > np.percentile(head.voxels, 99)
    assert head.voxels.min() >= 0 and head.modality == "MR"


def test_the_same_head_is_seen_at_every_spacing():
    fine = synthetic_head(6, "T1", shape=(60, 60, 60), spacing=(1.4, 1.4, 1.0)).voxels
    thick = synthetic_head(6, "T1", shape=(60, 60, 12), spacing=(1.4, 1.4, 5.0)).voxels
    averaged = fine.reshape(60, 60, 12, 5).mean(-1)
    assert np.corrcoef(averaged.ravel(), thick.ravel())[0, 1] > 0.97


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"contrast": "PET"}, "CTA"),
        ({"shape": (1, 8, 8)}, "at least 2"),
        ({"spacing": (1.0, 0.0, 1.0)}, "positive"),
        ({"aneurysm": "yes"}, "random"),
    ],
)
def test_an_impossible_head_is_refused(change, words):
    with pytest.raises(SettingsError, match=words):
        synthetic_head(0, **{"shape": (8, 8, 8), **change})


@pytest.mark.parametrize(
    ("site", "side", "diameter", "words"),
    [
        ("Vertebral Artery", "Left", 5.0, "Basilar Tip"),
        ("Basilar Tip", "Left", 5.0, "must be None"),
        ("Middle Cerebral Artery", None, 5.0, "'Left' or 'Right'"),
        ("Basilar Tip", None, 9.0, "2 to 8 mm"),
    ],
)
def test_an_impossible_aneurysm_is_refused(site, side, diameter, words):
    with pytest.raises(SettingsError, match=words):
        Aneurysm(site, side, diameter)
