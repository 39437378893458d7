"""What LMDB adds to the conformance suite: it keeps, it grows, and it does not open what it cannot read."""

import os
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from qbroker_server.core.errors import StoreDamaged, StoreFull
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


# -- the reserve -------------------------------------------------------------------------------------


def allocated(directory: Path) -> int:
    """The disk space that the store's file has, in bytes."""
    return (directory / "data.mdb").stat().st_blocks * 512


def test_the_reserve_is_allocated_behind_the_end_of_the_file_and_stays_ahead_of_it(
    tmp_path: Path,
) -> None:
    engine = LmdbEngine(tmp_path, reserve_bytes=8 * MIB)
    at_first = allocated(tmp_path) - (tmp_path / "data.mdb").stat().st_size

    fill(engine, b"a", 6_000, 4_000)
    fill(engine, b"b", 1, 1)

    behind = allocated(tmp_path) - (tmp_path / "data.mdb").stat().st_size
    assert at_first >= 8 * MIB
    assert behind >= 8 * MIB
    engine.close()


def test_the_reserve_is_there_again_after_a_restart(tmp_path: Path) -> None:
    LmdbEngine(tmp_path, reserve_bytes=8 * MIB).close()
    before = allocated(tmp_path)

    engine = LmdbEngine(tmp_path, reserve_bytes=8 * MIB)

    assert allocated(tmp_path) == before
    assert engine.room_bytes >= 8 * MIB
    engine.close()


def test_a_limit_on_the_size_of_files_counts_as_the_end_of_the_disk(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from qbroker_server.engines.lmdb import LmdbEngine; "
        "print(LmdbEngine(Path(sys.argv[1])).room_bytes)"
    )

    said = subprocess.run(
        ["/bin/sh", "-c", 'ulimit -f 4096; exec "$0" -c "$1" "$2"', sys.executable, code, tmp_path],
        capture_output=True,
        check=True,
        text=True,
    ).stdout

    # The shell counts in blocks of 512 or 1,024 bytes.
    assert int(said) < 4096 * KIB


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (lmdb.DiskError("mdb_txn_commit: No space left on device"), StoreFull),
        (lmdb.Error("mdb_txn_commit: Disk quota exceeded"), StoreFull),
        (lmdb.Error("mdb_txn_commit: File too large"), StoreFull),
        (lmdb.Error("mdb_txn_commit: Read-only file system"), StoreFull),
        (lmdb.Error("mdb_txn_commit: Input/output error"), None),
        (lmdb.PanicError("mdb_txn_begin: MDB_PANIC"), None),
        (lmdb.CorruptedError("mdb_get: MDB_CORRUPTED"), StoreDamaged),
        (lmdb.PageNotFoundError("mdb_get: MDB_PAGE_NOTFOUND"), StoreDamaged),
        (ValueError("No space left on device"), None),
    ],
)
def test_only_errors_after_which_nothing_is_stored_are_taken_for_a_full_disk(
    error: Exception, meaning: type | None, tmp_path: Path
) -> None:
    engine = LmdbEngine(tmp_path)

    found = engine.meaning(error)

    assert (None if found is None else type(found)) is meaning
    engine.close()
