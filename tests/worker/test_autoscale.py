"""How many slots follow from what is held."""

from qbroker_worker.autoscale import Autoscale


def test_slots_grow_at_once_to_what_is_held_and_to_no_more_than_the_greatest() -> None:
    scale = Autoscale(10, 2)

    assert scale.slots(0.0, 2, 7) == 7
    assert scale.slots(0.0, 7, 50) == 10


def test_slots_shrink_when_fewer_would_have_done_for_a_while() -> None:
    scale = Autoscale(10, 2, keep_s=30.0)

    assert scale.slots(0.0, 8, 3) == 8
    assert scale.slots(10.0, 8, 5) == 8
    assert scale.slots(29.0, 8, 1) == 8
    assert scale.slots(30.0, 8, 0) == 5
    assert scale.slots(31.0, 5, 0) == 5
    assert scale.slots(61.0, 5, 0) == 2


def test_a_moment_in_which_all_were_needed_begins_the_wait_anew() -> None:
    scale = Autoscale(10, 1, keep_s=30.0)

    scale.slots(0.0, 4, 1)
    scale.slots(20.0, 4, 4)

    assert scale.slots(31.0, 4, 1) == 4
    assert scale.slots(62.0, 4, 1) == 1
