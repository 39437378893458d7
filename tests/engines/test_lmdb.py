"""What LMDB adds to the conformance suite: it keeps, it grows, and it does not open what it cannot read."""

import os
from pathlib import Path

import pytest

from qbroker_server.core.errors import StoreDamaged
from qbroker_server.core.limits import KIB, MIB
from qbroker_server.core.ports import StoreError
from qbroker_server.engines.lmdb import LmdbEngine


def fill(engine: LmdbEngine, name: bytes, count: int, size: int) -> None:
    txn = engine.begin(bytes_max=count * size)
    for number in range(count):
        txn.put(b"%s%06d" % (name, number), b"x" * size)
    txn.commit()


def count(engine: LmdbEngine) -> int:
    with engine.read() as txn:
        return len(txn.scan(b"\x00", b"\xff", 1_000_000))


def test_what_was_committed_is_there_after_a_reopening(tmp_path: Path) -> None:
    first = LmdbEngine(tmp_path)
    fill(first, b"a", 10, 100)
    unfinished = first.begin(bytes_max=1)
    unfinished.put(b"b", b"lost")
    unfinished.abort()
    first.close()

    again = LmdbEngine(tmp_path)

    assert count(again) == 10
    again.close()


def test_the_map_grows_as_it_is_written(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path, map_bytes=64 * KIB)

    for name in b"abcdefgh":
        fill(engine, bytes((name,)), 4_000, 4 * KIB)
    fill(engine, b"large", 16, 4 * MIB)

    assert count(engine) == 8 * 4_000 + 16
    engine.close()


def test_a_grown_store_opens_with_a_small_map(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path, map_bytes=64 * KIB)
    fill(engine, b"a", 40, MIB)
    engine.close()

    again = LmdbEngine(tmp_path, map_bytes=64 * KIB)

    assert count(again) == 40
    fill(again, b"b", 40, MIB)
    assert count(again) == 80
    again.close()


def test_a_reader_sees_its_moment_while_the_map_is_written(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    fill(engine, b"a", 10, 100)

    with engine.read() as txn:
        before = len(txn.scan(b"a", b"z", 1_000))
        fill(engine, b"b", 10, 100)
        after = len(txn.scan(b"a", b"z", 1_000))

    assert (before, after) == (10, 10)
    assert count(engine) == 20
    engine.close()


def test_deleting_makes_room_inside_the_file(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    fill(engine, b"a", 100, 100 * KIB)
    full = engine.stored_bytes()

    txn = engine.begin(bytes_max=MIB)
    for key, _ in txn.scan(b"a", b"b", 1_000):
        txn.delete(key)
    txn.commit()

    assert full > 10_000_000
    assert engine.stored_bytes() < 100_000
    engine.close()


@pytest.mark.parametrize("content", [b"this is not a database" * 1_000, b"\x00" * 8_192])
def test_what_is_not_a_store_is_refused_with_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)

    with pytest.raises(StoreError, match=r"cannot be opened: .+"):
        LmdbEngine(tmp_path)


@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_file_that_was_cut_is_refused_with_a_sentence(tmp_path: Path, kept: float) -> None:
    engine = LmdbEngine(tmp_path)
    fill(engine, b"a", 50, 20 * KIB)
    engine.close()
    data = tmp_path / "data.mdb"
    os.truncate(data, int(data.stat().st_size * kept))

    with pytest.raises(StoreError, match="shorter than it was"):
        LmdbEngine(tmp_path)


def test_a_file_that_lacks_only_what_nothing_uses_is_taken(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    fill(engine, b"a", 50, 20 * KIB)
    txn = engine.begin(bytes_max=MIB)
    for number in range(50):
        txn.delete(b"a%06d" % number)
    txn.commit()
    # The tree stands at the file's end yet; changes move it to free pages further ahead.
    for name in (b"b", b"c", b"d"):
        fill(engine, name, 1, 1)
    engine.close()
    data = tmp_path / "data.mdb"
    os.truncate(data, data.stat().st_size - 4 * 4096)

    again = LmdbEngine(tmp_path)

    assert count(again) == 3
    again.close()


def test_a_page_that_cannot_be_read_is_told_as_such(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    fill(engine, b"a", 2_000, 500)
    engine.close()
    data = tmp_path / "data.mdb"
    with data.open("r+b") as file:
        file.seek(2 * 4096)
        file.write(bytes(data.stat().st_size - 2 * 4096))
    engine = LmdbEngine(tmp_path)

    with pytest.raises(StoreDamaged, match="cannot be read"):
        count(engine)

    engine.close()


def test_readers_that_failed_leave_their_places_to_others(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    fill(engine, b"a", 1, 1)

    def fail() -> None:
        with engine.read() as txn:
            raise ValueError(txn.get(b"a000000"))

    errors: list[ValueError] = []
    for _ in range(200):
        # The traceback of each knows the frame, and the frame the transaction.
        with pytest.raises(ValueError, match="x") as caught:
            fail()
        errors.append(caught.value)

    assert count(engine) == 1
    engine.close()
