"""The time index."""

from hypothesis import given, strategies as st

from qbroker_server.core import timetable
from qbroker_server.core.effects import Effects, Policy
from qbroker_server.engines.memory import MemoryEngine

TIMES = st.integers(0, 2**63)


@given(st.lists(TIMES, max_size=20), st.integers(0, 2**62))
def test_due_is_what_lies_in_the_past_in_order(times: list[int], now_ms: int) -> None:
    effects = Effects(Policy(), 0)
    txn = MemoryEngine().begin(bytes_max=0)
    for at_ms in times:
        timetable.remind(txn, at_ms, timetable.DUE, "id", effects)

    found = [at_ms for _, at_ms, _, _ in timetable.due(txn, now_ms, 100)]

    assert found == sorted({at_ms for at_ms in times if at_ms <= now_ms})
    assert timetable.next_ms(txn) == (min(times) if times else None)
    assert effects.next_ms == (min(times) if times else None)


def test_a_row_tells_its_time_kind_and_message() -> None:
    txn = MemoryEngine().begin(bytes_max=0)
    timetable.remind(txn, 5, timetable.EXPIRES, "é" * 127, Effects(Policy(), 0))

    ((_, at_ms, kind, message_id),) = timetable.due(txn, 5, 10)

    assert (at_ms, kind, message_id) == (5, timetable.EXPIRES, "é" * 127)


def test_a_time_before_1970_is_due_at_once() -> None:
    txn = MemoryEngine().begin(bytes_max=0)

    timetable.remind(txn, -5, timetable.DUE, "id", Effects(Policy(), 0))

    assert len(timetable.due(txn, 0, 10)) == 1
