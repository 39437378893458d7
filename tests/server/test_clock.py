"""The machine's clock."""

from datetime import UTC, datetime

from qbroker_server.clock import SystemClock


def test_now_is_unix_time_in_milliseconds() -> None:
    before = datetime.now(UTC).timestamp() * 1000

    now_ms = SystemClock().now_ms()

    assert before - 1 <= now_ms <= datetime.now(UTC).timestamp() * 1000


def test_monotonic_time_never_goes_back() -> None:
    clock = SystemClock()

    moments = [clock.monotonic() for _ in range(1_000)]

    assert moments == sorted(moments)
