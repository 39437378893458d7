"""Exceptions raised in other threads: who gets them, and who does not any more."""

import sys
import threading
from collections.abc import Callable

import pytest

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker_worker.pools.threadguard import Revoked, ThreadGuard


def spin(is_over: Callable[[], bool]) -> None:
    """Be in Python code until told to stop; in a frame of its own, as a `try` around the loop may miss an end on CPython 3.13."""
    while not is_over():
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
                spin(never.is_set)
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


def test_what_is_revoked_before_it_begins_is_ended_as_it_begins() -> None:
    guard = ThreadGuard()
    job = object()
    guard.take(job)
    guard.revoke(job)

    with pytest.raises(Revoked):
        guard.begin(None, None)

    guard.leave()
    guard.take(object())
    guard.begin(None, None)
    guard.leave()


def test_what_was_revoked_is_not_told_of_its_soft_limit_instead() -> None:
    guard = ThreadGuard()
    job = object()
    guard.take(job)
    guard.begin(1.0, 2.0, is_async=True)
    limited = guard.of(threading.get_ident())
    assert limited is not None

    guard.revoke(job)

    assert not guard.interrupt(limited)
    guard.leave()


def test_an_asyncio_task_is_cancelled_and_its_thread_is_left_alone() -> None:
    guard = ThreadGuard()
    job = object()
    cancelled: list[str] = []
    guard.take(job)
    guard.begin(None, None, is_async=True)

    guard.revoke(job)
    guard.waits(lambda: cancelled.append("as it began"))
    guard.revoke(job)
    guard.waits(None)
    guard.revoke(job)

    assert cancelled == ["as it began"] * 2
    with pytest.raises(Revoked):
        guard.heed()
    guard.leave()
    guard.heed()


def test_who_revokes_a_job_that_is_over_hits_nothing_that_runs_on_its_thread() -> None:
    guard = ThreadGuard()
    before, job = object(), object()
    guard.take(before)
    guard.begin(None, None)
    guard.leave()
    guard.take(job)
    guard.begin(None, None)

    guard.revoke(before)
    count = sum(1 for _ in range(1_000))
    guard.leave()

    assert count == 1_000


def test_what_is_forgotten_is_revoked_no_more() -> None:
    guard = ThreadGuard()
    job = object()
    guard.revoke(job)
    assert guard.is_revoked(job)

    guard.forget(job)

    assert not guard.is_revoked(job)


def test_what_is_revoked_around_its_end_hits_nothing_that_runs_there_next() -> None:
    guard = ThreadGuard()
    jobs = [[number] for number in range(6_000)]
    at = [jobs[0]]
    hit: list[int] = []
    stray: list[int] = []

    def run(job: list[int]) -> None:
        try:
            try:
                guard.take(job)
                try:
                    guard.begin(None, None)
                    sum(range(20))
                    spin(lambda: job[0] % 100 != 1)
                finally:
                    guard.end()
            finally:
                guard.leave()
        except Revoked:
            hit.append(job[0])

    def work() -> None:
        for job in jobs:
            try:
                at[0] = job
                run(job)
                for _ in range(20):
                    pass
            except Revoked:
                stray.append(job[0])

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        thread = threading.Thread(target=work)
        thread.start()
        revoked = jobs[0]
        while thread.is_alive():
            job = at[0]
            if job[0] % 2 and job is not revoked:
                guard.revoke(revoked := job)
        thread.join()
    finally:
        sys.setswitchinterval(interval_s)

    assert not stray
    assert {number for number in hit if number % 100 == 1} == set(range(1, 6_000, 100))
    assert all(number % 2 for number in hit)
    assert guard.of(thread.ident or 0) is None
