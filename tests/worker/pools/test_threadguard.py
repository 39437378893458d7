"""Exceptions raised in other threads: who gets them, and who does not any more."""

import threading

import pytest

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker_worker.pools.threadguard import ThreadGuard


def spin(is_over: threading.Event) -> None:
    """Be in Python code until told to stop."""
    while not is_over.is_set():
        pass


@pytest.mark.parametrize(
    ("verb", "raised"), [("interrupt", SoftTimeLimitExceeded), ("give_up", SystemExit)]
)
def test_an_exception_is_raised_in_the_thread_that_has_the_limit(
    verb: str, raised: type[BaseException]
) -> None:
    guard = ThreadGuard()
    caught: list[type[BaseException]] = []
    has_begun, never = threading.Event(), threading.Event()

    def work() -> None:
        try:
            try:
                guard.begin(1.0, 2.0)
                has_begun.set()
                spin(never)
            finally:
                guard.end()
        except BaseException as exc:  # noqa: BLE001 - SystemExit is one of them
            caught.append(type(exc))

    thread = threading.Thread(target=work)
    thread.start()
    has_begun.wait()
    assert thread.ident is not None
    limited = guard.of(thread.ident)
    assert limited is not None

    was_there = getattr(guard, verb)(limited)
    thread.join()

    assert was_there
    assert caught == [raised]
    assert guard.of(thread.ident) is None


def test_what_has_ended_is_not_interrupted() -> None:
    guard = ThreadGuard()
    guard.begin(1.0, None)
    limited = guard.of(threading.get_ident())
    assert limited is not None
    guard.end()

    assert not guard.interrupt(limited)


def test_the_soft_limit_comes_first_and_then_the_hard_one() -> None:
    guard = ThreadGuard(monotonic=lambda: 10.0)
    guard.begin(1.0, 2.0)
    limited = guard.of(threading.get_ident())
    assert limited is not None

    assert limited.next_at() == 11.0
    limited.is_interrupted = True
    assert limited.next_at() == 12.0
    limited.is_interrupted = False
    guard.end()
