"""How much is handed over, and how much is wanted at hand."""

from collections import deque

from hypothesis import given, strategies as st

from qbroker_worker.pools.pace import (
    AT_HAND_COUNT_MAX,
    HAND_OVER_BYTES_MAX,
    HAND_OVER_COUNT_MAX,
    Pace,
)
from qbroker_worker.values import Delivery
from tests.worker.toys import delivery


def _waiting(task: str, count: int) -> deque[Delivery]:
    return deque(delivery(task) for _ in range(count))


def _sizes(pace: Pace, task: str, run_s: float, rounds: int) -> list[int]:
    """How large hand-overs of a task become while it is measured."""
    sizes = []
    for _ in range(rounds):
        count = len(pace.cut(_waiting(task, 1_000), 1_000).deliveries)
        sizes.append(count)
        pace.observe(task, run_s * count, count)
    return sizes


def test_an_unknown_task_is_handed_over_alone() -> None:
    portion = Pace().cut(_waiting("new", 10), 10)

    assert len(portion.deliveries) == 1
    assert not portion.is_short


def test_hand_overs_of_a_short_task_double_up_to_the_limit() -> None:
    assert _sizes(Pace(), "short", 1e-6, 9) == [1, 2, 4, 8, 16, 32, 64, 128, HAND_OVER_COUNT_MAX]


def test_a_long_task_is_handed_over_alone_however_often_it_ran() -> None:
    assert _sizes(Pace(), "long", 0.1, 5) == [1, 1, 1, 1, 1]


def test_a_hand_over_carries_five_milliseconds_of_work() -> None:
    assert _sizes(Pace(), "middle", 0.001, 9)[-1] == 4


def test_an_unknown_task_ends_a_portion_of_short_ones() -> None:
    pace = Pace()
    _sizes(pace, "short", 1e-6, 8)
    waiting = _waiting("short", 3) + _waiting("new", 1) + _waiting("short", 3)

    portion = pace.cut(waiting, 100)

    assert [found.task for found in portion.deliveries] == ["short"] * 3
    assert portion.is_short
    assert len(waiting) == 4


def test_large_messages_travel_few_at_a_time() -> None:
    pace = Pace()
    _sizes(pace, "echo", 1e-6, 8)
    waiting = deque(delivery("echo", "x" * (HAND_OVER_BYTES_MAX // 2)) for _ in range(5))

    assert len(pace.cut(waiting, 5).deliveries) == 1


def test_the_wanted_count_grows_while_tasks_are_short_and_shrinks_when_they_are_long() -> None:
    pace = Pace()
    _sizes(pace, "short", 1e-6, 30)
    grown = pace.at_hand_count

    pace.observe("long", 10.0, 1)

    assert grown == AT_HAND_COUNT_MAX
    assert pace.at_hand_count == 0


def test_a_slot_wants_nothing_beyond_a_task_of_fifty_milliseconds() -> None:
    pace = Pace()

    pace.observe("long", 0.05, 1)

    assert pace.at_hand_count == 0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 1), st.integers(1, 50))),
    st.lists(st.sampled_from("abcd"), min_size=1, max_size=60),
    st.integers(1, 200),
)
def test_a_portion_is_never_empty_keeps_the_order_and_loses_nothing(
    measured: list[tuple[str, float, int]], tasks: list[str], count_max: int
) -> None:
    pace = Pace()
    for task, total_s, count in measured:
        pace.observe(task, total_s, count)
    before = [delivery(task) for task in tasks]
    waiting = deque(before)

    portion = pace.cut(waiting, count_max)

    assert 1 <= len(portion.deliveries) <= max(1, count_max)
    assert portion.deliveries + list(waiting) == before
