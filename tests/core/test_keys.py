"""Where things stand in the ordered map."""

from dataclasses import replace

from hypothesis import given, strategies as st

from qbroker_server.core import keys, limits, queue
from tests.support.scene import Scene, new

NAMES = st.text(st.characters(min_codepoint=1, exclude_categories=["Cs"]), min_size=1, max_size=20)
PLACES = st.tuples(st.integers(0, limits.PRIORITY_MAX), st.integers(0, 2**64 - 1))


def test_families_do_not_overlap() -> None:
    families = [value for name, value in vars(keys).items() if name.isupper() and name != "VHOST"]
    families = [value for value in families if isinstance(value, bytes)]

    assert len(families) > 5
    assert len(set(families)) == len(families)
    assert not any(a != b and a.startswith(b) for a in families for b in families)


@given(st.binary(min_size=1).filter(lambda prefix: prefix[-1] < 255), st.binary())
def test_after_is_greater_than_all_that_begins_with_the_prefix(prefix: bytes, rest: bytes) -> None:
    assert prefix + rest < keys.after(prefix)


@given(PLACES, PLACES)
def test_ready_keys_sort_by_priority_then_number(a: tuple[int, int], b: tuple[int, int]) -> None:
    scene = Scene()
    scene.publish(new())
    record = replace(scene.record(), lane=queue.PLAIN)

    key_a, key_b = (
        queue.ready_key(replace(record, priority=priority, seq=seq)) for priority, seq in (a, b)
    )

    assert (key_a < key_b) == ((-a[0], a[1]) < (-b[0], b[1]))


@given(NAMES, NAMES)
def test_queues_never_mix(a: str, b: str) -> None:
    prefix, key = queue.prefix(a), queue.prefix(b, queue.PLAIN)

    assert (prefix <= key < keys.after(prefix)) == (a == b)


def test_the_longest_keys_fit_the_store() -> None:
    name, session = "n" * limits.NAME_BYTES_MAX, "s" * limits.SESSION_BYTES_MAX
    lane = queue.PARKED + bytes(8)

    longest = max(
        len(queue.prefix(name, lane)) + 9,
        len(keys.LEASE) + len(session) + 1 + len(name),
        len(keys.PAYLOAD) + len(name) + 1 + keys.U32.size,
        len(keys.TIME) + keys.U64.size + 1 + len(name),
    )

    assert longest <= 511
