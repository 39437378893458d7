"""The reader of pages sees what LMDB sees, whatever the tree looks like."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from qbroker_server.core.ports import StoreError
from qbroker_server.engines import pages
from qbroker_server.engines.lmdb import LmdbEngine

ROWS = st.dictionaries(st.binary(min_size=1, max_size=511), st.binary(max_size=9_000), max_size=60)


def write(directory: Path, rows: dict[bytes, bytes], gone: Sequence[bytes] = ()) -> None:
    engine = LmdbEngine(directory)
    txn = engine.begin(bytes_max=2**20)
    for key, value in rows.items():
        txn.put(key, value)
    txn.commit()
    txn = engine.begin(bytes_max=2**20)
    for key in gone:
        txn.delete(key)
    txn.commit()
    engine.close()


@settings(max_examples=30, deadline=None)
@given(rows=ROWS, data=st.data())
def test_what_lmdb_wrote_is_read_and_what_it_deleted_is_not(
    rows: dict[bytes, bytes], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("store")
    gone = [key for key in rows if data.draw(st.booleans())]
    write(directory, rows, gone)

    image = pages.read(directory / "data.mdb")

    assert image.rows == {key: value for key, value in rows.items() if key not in gone}
    assert (image.faults, image.may_be_old) == ([], False)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_no_damage_of_any_bytes_makes_the_reader_fail(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("store")
    write(directory, {b"\x00\x00r%04d" % n: b"x" * (n * 7 % 3_000) for n in range(120)})
    file = directory / "data.mdb"
    damaged = bytearray(file.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        noise = data.draw(st.binary(min_size=1, max_size=64))
        damaged[at : at + len(noise)] = noise
    file.write_bytes(damaged)

    image = pages.read(file)

    assert len(image.rows) <= 240


def test_a_page_that_is_in_use_and_listed_as_free_is_a_fault(tmp_path: Path) -> None:
    rows = {b"\x00\x00r%04d" % n: b"x" * 300 for n in range(400)}
    write(tmp_path, rows, list(rows)[:200])
    raw = (tmp_path / "data.mdb").read_bytes()
    meta = max((0, 4096), key=lambda at: raw[at + 144 : at + 152][::-1])
    root = int.from_bytes(raw[meta + 128 : meta + 136], "little")
    free_root = int.from_bytes(raw[meta + 80 : meta + 88], "little")
    place = free_root * 4096 + int.from_bytes(raw[free_root * 4096 + 16 :][:2], "little")
    changed = bytearray(raw)
    # The node's key has 8 bytes; behind it are the count and the numbers.
    changed[place + 24 : place + 32] = root.to_bytes(8, "little")
    (tmp_path / "data.mdb").write_bytes(changed)

    image = pages.read(tmp_path / "data.mdb")

    assert f"page {root} is in use and listed as free" in image.faults


def test_a_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be read: No such file"):
        pages.read(tmp_path / "none")


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(20_000)])
def test_a_file_that_is_no_store_has_a_fault_and_no_rows(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.mdb").write_bytes(content)

    image = pages.read(tmp_path / "data.mdb")

    assert (image.rows, image.faults) == ({}, ["neither meta page can be read"])
