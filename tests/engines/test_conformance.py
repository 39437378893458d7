"""What every engine promises (core/ports.py). A new one passes this unchanged."""

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest
from hypothesis import given, settings, strategies as st

from qbroker_server.core.limits import KIB, MIB
from qbroker_server.core.ports import Engine, WriteTxn
from qbroker_server.engines.lmdb import LmdbEngine
from qbroker_server.engines.memory import MemoryEngine

Make = Callable[[Path], Engine]


def make_memory(directory: Path) -> Engine:
    del directory
    return MemoryEngine()


def make_lmdb(directory: Path) -> Engine:
    return LmdbEngine(directory)


@pytest.fixture(params=[make_memory, make_lmdb], ids=["memory", "lmdb"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    make: Make = request.param
    engine = make(tmp_path)
    yield engine
    engine.close()


def begin(engine: Engine, bytes_max: int = MIB) -> WriteTxn:
    return engine.begin(bytes_max=bytes_max)


def commit(engine: Engine, **rows: bytes) -> None:
    """Store rows whose keys are the names."""
    txn = begin(engine)
    for key, value in rows.items():
        txn.put(key.encode(), value)
    txn.commit()


def everything(engine: Engine) -> list[tuple[bytes, bytes]]:
    with engine.read() as txn:
        return list(txn.scan(b"\x00", b"\xff" * 600, 10_000))


def test_a_new_store_is_empty(engine: Engine) -> None:
    assert everything(engine) == []


def test_what_was_committed_is_read(engine: Engine) -> None:
    commit(engine, a=b"1")

    with engine.read() as txn:
        assert txn.get(b"a") == b"1"
        assert txn.get(b"b") is None


def test_a_second_put_replaces_the_first(engine: Engine) -> None:
    commit(engine, a=b"1")

    commit(engine, a=b"a longer one")

    assert everything(engine) == [(b"a", b"a longer one")]


def test_values_may_be_empty(engine: Engine) -> None:
    commit(engine, a=b"")

    assert everything(engine) == [(b"a", b"")]


def test_delete_tells_whether_it_was_there(engine: Engine) -> None:
    commit(engine, a=b"1")
    txn = begin(engine)

    told = [txn.delete(b"a"), txn.delete(b"a"), txn.delete(b"never")]
    txn.commit()

    assert told == [True, False, False]
    assert everything(engine) == []


def test_a_writer_sees_its_own_changes(engine: Engine) -> None:
    commit(engine, a=b"1", b=b"2", c=b"3")
    txn = begin(engine)

    txn.put(b"aa", b"new")
    txn.put(b"c", b"changed")
    txn.delete(b"b")

    assert txn.get(b"aa") == b"new"
    assert txn.get(b"b") is None
    assert list(txn.scan(b"a", b"z", 9)) == [(b"a", b"1"), (b"aa", b"new"), (b"c", b"changed")]
    txn.abort()


def test_what_was_deleted_may_be_put_again(engine: Engine) -> None:
    commit(engine, a=b"1")
    txn = begin(engine)

    txn.delete(b"a")
    txn.put(b"a", b"2")
    txn.commit()

    assert everything(engine) == [(b"a", b"2")]


def test_an_abort_leaves_nothing(engine: Engine) -> None:
    commit(engine, a=b"1", b=b"2")
    txn = begin(engine)
    txn.put(b"a", b"changed")
    txn.put(b"c", b"new")
    txn.delete(b"b")

    txn.abort()

    assert everything(engine) == [(b"a", b"1"), (b"b", b"2")]


def test_readers_see_only_what_is_committed(engine: Engine) -> None:
    commit(engine, a=b"1", b=b"2")
    txn = begin(engine)
    txn.put(b"a", b"changed")
    txn.put(b"c", b"new")
    txn.delete(b"b")

    before = everything(engine)
    txn.commit()

    assert before == [(b"a", b"1"), (b"b", b"2")]
    assert everything(engine) == [(b"a", b"changed"), (b"c", b"new")]


def test_a_scan_takes_the_start_and_leaves_the_stop(engine: Engine) -> None:
    commit(engine, a=b"", b=b"", ba=b"", c=b"", d=b"")

    with engine.read() as txn:
        rows = txn.scan(b"b", b"d", 100)

    assert [key for key, _ in rows] == [b"b", b"ba", b"c"]


@pytest.mark.parametrize(("limit", "count"), [(0, 0), (1, 1), (4, 4), (5, 5), (6, 5)])
def test_a_scan_ends_at_its_limit(engine: Engine, limit: int, count: int) -> None:
    commit(engine, a=b"", b=b"", c=b"", d=b"", e=b"")

    with engine.read() as txn:
        assert len(txn.scan(b"a", b"z", limit)) == count


@pytest.mark.parametrize(
    ("start", "stop"), [(b"x", b"z"), (b"c", b"b"), (b"b", b"b"), (b"x" * 600, b"z" * 600)]
)
def test_a_scan_of_nothing_is_empty(engine: Engine, start: bytes, stop: bytes) -> None:
    commit(engine, a=b"", b=b"", c=b"")

    with engine.read() as txn:
        assert list(txn.scan(start, stop, 10)) == []


def test_keys_are_in_the_order_of_their_bytes(engine: Engine) -> None:
    keys = [b"\x00", b"\x00\x00", b"\x00\xff", b"\x01", b"a", b"a\x00", b"ab", b"b", b"\xff"]
    txn = begin(engine)
    for key in reversed(keys):
        txn.put(key, key)
    txn.commit()

    assert everything(engine) == [(key, key) for key in keys]


@pytest.mark.parametrize("size", [1, 510, 511])
def test_a_key_has_up_to_511_bytes(engine: Engine, size: int) -> None:
    txn = begin(engine)
    txn.put(b"k" * size, b"v")
    txn.commit()

    assert everything(engine) == [(b"k" * size, b"v")]


@pytest.mark.parametrize("size", [0, 512])
def test_no_other_key_can_be_put(engine: Engine, size: int) -> None:
    txn = begin(engine)

    with pytest.raises(Exception, match=r"."):
        txn.put(b"k" * size, b"v")
    txn.abort()

    assert everything(engine) == []


def test_a_key_too_long_is_never_there(engine: Engine) -> None:
    commit(engine, a=b"", z=b"")
    txn = begin(engine)

    assert txn.get(b"k" * 10_000) is None
    assert not txn.delete(b"k" * 10_000)
    txn.abort()


@pytest.mark.parametrize("size", [4_079, 4_080, 4_081, 16 * KIB, 4 * MIB])
def test_large_values_are_kept(engine: Engine, size: int) -> None:
    value = bytes(range(256)) * (size // 256 + 1)

    commit(engine, a=value[:size], b=value[:size])

    assert everything(engine) == [(b"a", value[:size]), (b"b", value[:size])]


def test_stored_bytes_grow_with_what_is_stored(engine: Engine) -> None:
    before = engine.stored_bytes()

    commit(engine, a=b"x" * MIB)

    assert engine.stored_bytes() - before >= MIB
    assert engine.room_bytes > 0


def test_one_writes_while_others_read(engine: Engine) -> None:
    failures: list[list[bytes]] = []

    def read() -> None:
        for _ in range(300):
            with engine.read() as txn:
                values = [value for _, value in txn.scan(b"a", b"z", 50)]
            if len(set(values)) > 1:
                failures.append(values)

    reader = Thread(target=read)
    reader.start()
    for number in range(100):
        txn = begin(engine)
        for key in b"abcdefghijklmnopqrst":
            txn.put(bytes((key,)), b"%d" % number)
        txn.commit()
    reader.join()

    assert failures == []


KEYS = st.binary(min_size=1, max_size=2)
CHANGES = st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=3)), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(CHANGES, st.booleans()), max_size=5), KEYS, KEYS, st.integers(0, 9))
def test_the_memory_engine_is_a_sorted_dict(
    txns: list[tuple[list[tuple[bytes, bytes | None]], bool]],
    start: bytes,
    stop: bytes,
    limit: int,
) -> None:
    engine = MemoryEngine()
    model: dict[bytes, bytes] = {}
    for changes, is_committed in txns:
        txn, rows = begin(engine), dict(model)
        for key, value in changes:
            if value is None:
                assert txn.delete(key) == (rows.pop(key, None) is not None)
            else:
                txn.put(key, value)
                rows[key] = value
            found = [(key, rows[key]) for key in sorted(rows) if start <= key < stop]
            assert list(txn.scan(start, stop, limit)) == found[:limit]
        if is_committed:
            txn.commit()
            model = rows
        else:
            txn.abort()

    assert everything(engine) == sorted(model.items())
