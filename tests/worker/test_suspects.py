"""What was lost with its workers before: one by one, when the broker knows."""

import pytest

from qbroker_worker.suspects import Suspects, is_suspect
from qbroker_worker.values import Delivery


def _new(number: int) -> Delivery:
    return Delivery(f"id-{number}", 1, False, "proj.add", "celery", False, b"message")


def _lost(number: int, attempt: int = 3) -> Delivery:
    return Delivery(f"id-{number}", attempt, True, "proj.add", "celery", False, b"message")


@pytest.mark.parametrize(
    ("delivery", "expected"),
    [
        (_new(1), False),
        (_lost(1, attempt=2), False),
        (_lost(1, attempt=3), True),
        (_lost(1, attempt=9), True),
        (_lost(1, attempt=9)._replace(is_redelivered=False), False),
    ],
)
def test_it_takes_two_losses_to_be_suspect(delivery: Delivery, expected: bool) -> None:
    assert is_suspect(delivery) is expected


def test_what_comes_before_a_suspect_goes_on_and_what_comes_after_waits() -> None:
    suspects = Suspects()
    before, suspect, after = _new(1), _lost(2), _new(3)

    assert suspects.sort([before, suspect, after]) == [before]
    assert suspects.count == 2
    assert not suspects.has_begun
    assert suspects.sort([_new(4)]) == []
    assert suspects.count == 3


def test_a_suspect_goes_on_when_its_start_is_known_with_what_came_after_it() -> None:
    suspects = Suspects()
    first, after, second, last = _lost(1), _new(2), _lost(3), _new(4)
    suspects.sort([first, after, second, last])

    assert suspects.next() is first
    assert suspects.next() is None
    assert suspects.has_begun
    assert suspects.sort([]) == []
    assert suspects.known(second) == []
    assert suspects.known(first) == [first, after]
    assert suspects.next() is second
    assert suspects.known(second) == [second, last]
    assert suspects.next() is None
    assert suspects.count == 0


def test_what_is_discarded_is_here_no_more() -> None:
    suspects = Suspects()
    first, second, third = _lost(1), _lost(2), _new(3)
    suspects.sort([first, second, third])
    suspects.next()

    assert suspects.discard(first)
    assert not suspects.discard(first)
    assert suspects.known(first) == []
    assert suspects.discard(second)
    assert suspects.sort([]) == [third]


def test_what_has_not_begun_can_be_taken_back() -> None:
    suspects = Suspects()
    first, second = _lost(1), _lost(2)
    suspects.sort([first, second])
    suspects.next()

    assert suspects.withdraw() == [second]
    assert suspects.count == 1
    assert suspects.known(first) == [first]
