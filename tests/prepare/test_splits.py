from collections import namedtuple

import numpy as np
import pytest

from wavespark.prepare import held_out

V = namedtuple("V", "patient content")


def volumes(patients, each=3, seed=0):
    rng = np.random.default_rng(seed)
    return [V(f"p{p}", rng.bytes(32).hex()) for p in range(patients) for _ in range(each)]


def sides(result):
    return tuple({v.patient for v in side} for side in result)


def test_no_patient_is_on_both_sides_and_the_share_is_about_what_was_asked():
    everyone = volumes(2000)
    train, out = held_out(everyone, 0.2)
    assert len(train) + len(out) == len(everyone)
    assert not sides((train, out))[0] & sides((train, out))[1]
    assert abs(len(out) / len(everyone) - 0.2) < 0.03


def test_added_patients_and_another_order_move_nobody():
    everyone = volumes(300)
    train, out = held_out(everyone, 0.2)
    more_train, more_out = held_out([*volumes(200, seed=1)[::-1], *everyone[::-1]], 0.2)
    # the added ones carry other contents; patients of the same name are linked, so names must differ
    renamed = [V("q" + v.patient, v.content) for v in volumes(200, seed=1)]
    more_train, more_out = held_out([*renamed, *everyone[::-1]], 0.2)
    assert {v for v in more_train if v in set(everyone)} == set(train)
    assert {v for v in more_out if v in set(everyone)} == set(out)


def test_another_secret_moves_nobody_because_contents_decide():
    everyone = volumes(300)
    renamed = [V("x" + v.patient[::-1] + "y", v.content) for v in everyone]
    assert [v.content for v in held_out(everyone, 0.3)[1]] == [v.content for v in held_out(renamed, 0.3)[1]]


def test_copies_of_a_volume_under_two_names_stay_together():
    everyone = volumes(200, each=1)
    copies = [V("copy " + v.patient, v.content) for v in everyone]
    train, out = held_out(everyone + copies, 0.5)
    assert not {v.content for v in train} & {v.content for v in out}


def test_patients_who_gain_volumes_stay_where_they_were_known_to_be():
    everyone = volumes(300, each=1)
    train, out = held_out(everyone, 0.3)
    known = {v.content: v in out for v in everyone}
    grown = [*everyone, *(V(v.patient, w.content) for v, w in zip(everyone, volumes(300, each=1, seed=5), strict=True))]
    assert sides(held_out(grown, 0.3, known=known)) == sides((train, out))
    assert sides(held_out(grown, 0.3)) != sides((train, out))


def test_seeds_give_other_splits_and_the_ends_are_all_or_none():
    everyone = volumes(100)
    assert held_out(everyone, 0.3, seed=1)[1] != held_out(everyone, 0.3, seed=2)[1]
    assert held_out(everyone, 0.0)[1] == [] == held_out(everyone, 1.0)[0]
    with pytest.raises(ValueError, match="0 to 1"):
        held_out(everyone, 1.5)
