"""Ids are UUIDv7, rise, and differ after a fork."""

import os
import threading
import uuid

from qbroker.ids import IdSource, uuid7


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    source = IdSource(now_ms=lambda: 0x0123456789AB)

    made = uuid.UUID(source())

    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == 0x0123456789AB


def test_ids_rise_within_a_millisecond_and_when_the_clock_steps_back() -> None:
    times = iter([10, 10, 10, 5, 11])
    source = IdSource(now_ms=lambda: next(times))

    made = [source() for _ in range(5)]

    assert made == sorted(set(made))


def test_threads_never_get_the_same_id() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.extend([uuid7() for _ in range(5_000)]))
        for _ in range(4)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(made)) == 20_000


def test_a_forked_child_makes_other_ids_than_its_parent() -> None:
    # A stopped clock: both would count on from the same id.
    source = IdSource(now_ms=lambda: 1)
    os.register_at_fork(after_in_child=source.reset)
    source()
    reading, writing = os.pipe()

    pid = os.fork()
    if pid == 0:
        os.write(writing, source().encode())
        os._exit(0)
    os.waitpid(pid, 0)

    assert os.read(reading, 36).decode() != source()
    os.close(reading)
    os.close(writing)
