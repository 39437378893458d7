"""The clock is the machine's."""

from datetime import UTC, datetime

from qbroker_worker import clock


def test_the_time_for_people_is_unix_time_in_milliseconds() -> None:
    before = datetime.now(UTC).timestamp()

    now_ms = clock.now_ms()

    assert before - 0.001 <= now_ms / 1000 <= datetime.now(UTC).timestamp()
