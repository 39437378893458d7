"""How things look on disk."""

import pytest
from hypothesis import given, strategies as st

from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.records import (
    Extras,
    Flag,
    Limit,
    QueueRecord,
    Record,
    Stage,
    UniqueScope,
    decode,
    decode_queue,
    encode,
    encode_queue,
    has_ended,
)

U8, U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
I64 = st.integers(-(2**63), 2**63 - 1)
SHORT = st.text(max_size=60)

EXTRAS = st.builds(
    Extras,
    # Without a key its scope says nothing, and is not stored; the same with weights.
    unique_key=st.text(min_size=1, max_size=60),
    unique_scope=st.sampled_from(UniqueScope),
    unique_until_ms=st.integers(0, 2**53),
    limits=st.lists(
        st.builds(
            Limit,
            key=SHORT,
            rate=st.floats(0, 1e6),
            per_ms=st.integers(0, 2**40),
            concurrency=U32,
        ),
        max_size=3,
    ).map(tuple),
    fairness_key=st.text(min_size=1, max_size=60),
    fairness_weight=st.integers(1, 100),
    labels=st.lists(SHORT, max_size=3).map(tuple),
    root_id=SHORT,
    history=st.lists(
        st.tuples(U32, SHORT, st.integers(0, 2**53), SHORT, SHORT).map(list), max_size=3
    ),
)

RECORDS = st.builds(
    Record,
    stage=st.sampled_from(Stage),
    flags=U32,
    priority=U8,
    end_reason=U8,
    attempt=U32,
    deaths=U16,
    deaths_max=U16,
    retries=U32,
    size=U32,
    seq=U64,
    published_ms=I64,
    eta_ms=I64,
    expires_ms=I64,
    result_ttl_ms=I64,
    changed_ms=I64,
    queue=SHORT,
    task=SHORT,
    session=SHORT,
    lane=st.binary(max_size=255),
    state=SHORT,
    detail=st.text(max_size=1_000),
    extras=st.none() | EXTRAS,
    payload=st.binary(max_size=2_000),
)


@given(RECORDS)
def test_a_record_is_read_as_it_was_written(record: Record) -> None:
    assert decode(b"key", encode(record)) == record


@given(RECORDS, st.data())
def test_a_flipped_bit_is_noticed(record: Record, data: st.DataObject) -> None:
    raw = bytearray(encode(record))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8

    with pytest.raises(CorruptRecord):
        decode(b"key", bytes(raw))


@given(RECORDS)
def test_it_is_seen_without_reading_it_whether_a_message_has_ended(record: Record) -> None:
    assert has_ended(encode(record)) == (record.stage in (Stage.DONE, Stage.DEAD))


@given(RECORDS, st.data())
def test_what_is_damaged_counts_as_ended(record: Record, data: st.DataObject) -> None:
    raw = bytearray(encode(record))
    at = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[at // 8] ^= 1 << at % 8

    assert has_ended(bytes(raw))
    assert has_ended(bytes(raw[: at // 8]))


@given(RECORDS, st.data())
def test_a_truncated_record_is_noticed(record: Record, data: st.DataObject) -> None:
    raw = encode(record)
    size = data.draw(st.integers(0, len(raw) - 1))

    with pytest.raises(CorruptRecord):
        decode(b"key", raw[:size])


@given(st.binary(max_size=200))
def test_garbage_is_noticed(raw: bytes) -> None:
    with pytest.raises(CorruptRecord, match="record b'key' is damaged"):
        decode(b"key", raw)
    with pytest.raises(CorruptRecord, match="record b'key' is damaged"):
        decode_queue(b"key", raw)


def test_a_record_with_a_damaged_version_byte_is_not_guessed_at() -> None:
    raw = bytearray(encode_queue(QueueRecord(1, 2, 3)))
    raw[0] = 9

    with pytest.raises(CorruptRecord, match="its version byte is damaged"):
        decode_queue(b"key", bytes(raw))


@given(I64, I64, I64)
def test_a_queues_record_is_read_as_it_was_written(ready: int, leased: int, due: int) -> None:
    record = QueueRecord(ready, leased, due)

    assert decode_queue(b"key", encode_queue(record)) == record


def test_each_flag_has_a_bit_of_its_own() -> None:
    bits = [value for name, value in vars(Flag).items() if name.isupper()]

    assert len(set(bits)) == len(bits)
    assert all(bit.bit_count() == 1 for bit in bits)


@given(
    root_id=st.text(max_size=20),
    workflow_id=st.text(max_size=20),
    join_id=st.text(min_size=1, max_size=20),
    index=st.integers(0, 2**40),
)
def test_a_member_of_a_join_is_written_like_all_others(
    root_id: str, workflow_id: str, join_id: str, index: int
) -> None:
    member = Extras(root_id=root_id, workflow_id=workflow_id, place=(join_id, index))
    other = Extras(
        labels=("a=b",), root_id=root_id, workflow_id=workflow_id, place=(join_id, index)
    )

    assert member.encode() == other.encode().replace(b'"s":["a=b"],', b"", 1)
    assert Extras.decode(member.encode()) == member
