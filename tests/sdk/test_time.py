"""Waits that grow."""

from qbroker.utils.time import get_exponential_backoff_interval


def test_a_wait_doubles_up_to_the_longest() -> None:
    waits = [get_exponential_backoff_interval(3, retries, 40) for retries in range(6)]

    assert waits == [3, 6, 12, 24, 40, 40]


def test_a_wait_after_very_many_tries_costs_no_large_number() -> None:
    assert get_exponential_backoff_interval(1, 10**9, 600) == 600


def test_jitter_takes_a_part_of_the_wait_and_all_parts_come() -> None:
    waits = {get_exponential_backoff_interval(1, 2, 600, full_jitter=True) for _ in range(1_000)}

    assert waits == {0, 1, 2, 3, 4}


def test_without_a_wait_there_is_nothing_to_take_a_part_of() -> None:
    assert get_exponential_backoff_interval(0, 3, 600, full_jitter=True) == 0
