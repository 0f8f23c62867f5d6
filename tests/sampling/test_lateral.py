"""Left and right change places together: voxels, label values, names of classes."""

import numpy as np
import pytest

from wavespark.errors import SettingsError
from wavespark.rsna_labels import LABELS
from wavespark.sampling.augment import Augmentation
from wavespark.sampling.lateral import Sides, mirrored_name
from wavespark.sampling.scene import Scene, flipped


def a_head():
    """Label 5 (left) in the low half of the first axis (the patient's left), 9 (right) in the high half, 2 in the middle."""
    labels = np.zeros((10, 4, 4), np.int16)
    labels[1:3], labels[7:9], labels[4:6] = 5, 9, 2
    return Scene(voxels=labels[None].astype(np.float32), maps={"labels": labels}, points=np.array([[1.0, 2, 3]]))


def test_a_mirrored_head_still_has_its_left_on_the_left():
    scene, sides = a_head(), Sides(((5, 9),))
    made = flipped(scene, (0,), sides)
    assert np.array_equal(made.maps["labels"], scene.maps["labels"])  # this head is symmetric
    assert np.array_equal(made.voxels[0], scene.voxels[0][::-1])
    assert made.mirrored and not flipped(made, (0,), sides).mirrored
    assert made.points.tolist() == [[8, 2, 3]] and scene.points.tolist() == [[1, 2, 3]]


def test_other_axes_leave_the_sides_alone():
    scene = a_head()
    made = flipped(scene, (1, 2), Sides(((5, 9),)))
    assert not made.mirrored and made.points.tolist() == [[1, 1, 0]]
    assert np.array_equal(made.maps["labels"], scene.maps["labels"][:, ::-1, ::-1])


def test_flipping_twice_is_flipping_never():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, (6, 5, 4)).astype(np.uint8)
    scene = Scene(voxels=rng.random((2, 6, 5, 4), np.float32), maps={"l": labels}, points=rng.random((3, 3)))
    for axes in ((0,), (0, 1), (0, 1, 2), (2,)):
        again = flipped(flipped(scene, axes, Sides(((1, 2), (4, 7)))), axes, Sides(((1, 2), (4, 7))))
        assert np.array_equal(again.voxels, scene.voxels) and np.array_equal(again.maps["l"], labels)
        assert np.allclose(again.points, scene.points) and not again.mirrored


def test_the_locations_of_aneurysms_change_sides_and_the_others_stay():
    columns = Sides.columns(LABELS)
    assert [LABELS[i] for i in columns] == [mirrored_name(n) for n in LABELS]
    assert np.array_equal(columns[columns], np.arange(14))
    assert [i for i, c in enumerate(columns) if i == c] == [6, 11, 12, 13]


def test_pairs_come_from_names_and_a_lone_side_is_refused():
    names = {1: "Left-Thalamus", 2: "right-thalamus".title(), 3: "brain stem", 4: "ctx_lh_insula", 8: "ctx_rh_insula"}
    assert Sides.of_names(names).pairs == ((1, 2), (4, 8))
    assert Sides.of_names({1: "leftover", 2: "bright spot"}).pairs == ()
    with pytest.raises(SettingsError, match="no 'Right amygdala'"):
        Sides.of_names({1: "Left amygdala"})
    with pytest.raises(SettingsError, match="each value once"):
        Sides(((1, 2), (2, 3)))


def test_label_values_change_places_and_the_given_map_is_untouched():
    labels = np.array([[[0, 1, 2, 3, 7]]])
    assert Sides(((1, 7),)).labels(labels).tolist() == [[[0, 7, 2, 3, 1]]]
    assert labels.tolist() == [[[0, 1, 2, 3, 7]]]


def test_the_flip_of_an_augmentation_knows_the_sides():
    off = Augmentation(flip=1.0, scale=0, shift=0, noise=0)
    args = {"modality": "MR", "spacing": (1.0, 1.0, 1.0)}
    made = off.scene(a_head(), **args, rng=np.random.default_rng(0), sides=Sides(((5, 9),)))
    assert made.mirrored and made.maps["labels"][2, 0, 0] == 5
    ignorant = off.scene(a_head(), **args, rng=np.random.default_rng(0))
    assert ignorant.maps["labels"][2, 0, 0] == 9
