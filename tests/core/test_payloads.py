"""Payloads of all sizes, on every engine."""

from collections.abc import Callable
from pathlib import Path

import pytest

from qbroker_server.core import keys, limits
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.limits import KIB, MIB
from qbroker_server.core.ports import Engine
from qbroker_server.core.records import Flag
from qbroker_server.engines.lmdb import LmdbEngine
from qbroker_server.engines.memory import MemoryEngine
from tests.support.scene import Scene, new

SIZES = [0, 1, KIB, KIB + 1, 4_080, 4_081, 16 * KIB, 16 * KIB + 1, 4_080 * 5, 4 * MIB, 8 * MIB]


def payload_of(size: int) -> bytes:
    """So many bytes, no two chunks of them alike."""
    return (b"".join(b"%08d" % n for n in range(size // 8 + 1)))[:size]


@pytest.mark.parametrize("make", [lambda _: MemoryEngine(), LmdbEngine], ids=["memory", "lmdb"])
@pytest.mark.parametrize("size", SIZES)
def test_a_payload_and_a_result_of_any_size_come_back_whole(
    size: int, make: Callable[[Path], Engine], tmp_path: Path
) -> None:
    scene = Scene(make(tmp_path))
    scene.register()
    payload, result = payload_of(size), payload_of(size)[::-1]

    scene.publish(new(payload=payload))
    delivery = scene.take_one()
    scene.settle(delivery, result=result)

    assert delivery.payload == payload
    assert scene.payload() == result
    assert scene.faults() == []
    scene.pass_time(scene.policy.result_ttl_ms)
    assert scene.rows(keys.PAYLOAD) == []
    scene.engine.close()


@pytest.mark.parametrize(
    ("size", "row_count"),
    [
        (KIB, 0),
        (KIB + 1, 1),
        (16 * KIB, 1),
        (16 * KIB + 1, -(-(16 * KIB + 1) // limits.CHUNK_BYTES)),
    ],
)
def test_only_large_payloads_are_apart_and_only_larger_ones_are_cut(
    size: int, row_count: int
) -> None:
    scene = Scene()

    scene.publish(new(payload=payload_of(size)))

    assert len(scene.rows(keys.PAYLOAD)) == row_count
    assert bool(scene.record().flags & Flag.PAYLOAD_APART) == (row_count > 0)


@pytest.mark.parametrize(("before", "after"), [(100_000, 10), (10, 100_000), (100_000, 2_000)])
def test_a_result_leaves_nothing_of_the_payload_behind(before: int, after: int) -> None:
    scene = Scene()
    scene.register()
    scene.publish(new(payload=payload_of(before)))

    scene.settle(scene.take_one(), result=payload_of(after))

    assert scene.payload() == payload_of(after)
    assert sum(len(row) for _, row in scene.rows(keys.PAYLOAD)) == (after if after > KIB else 0)


def test_payloads_of_ids_that_begin_alike_are_apart() -> None:
    scene = Scene()
    scene.publish(new("a", payload=payload_of(50_000)), new("aa", payload=b"x" * 50_000))

    assert scene.payload("a") == payload_of(50_000)
    assert scene.payload("aa") == b"x" * 50_000


@pytest.mark.parametrize("size", [KIB + 1, 100_000])
def test_a_damaged_payload_is_noticed(size: int) -> None:
    scene = Scene()
    scene.publish(new(payload=payload_of(size)))
    scene.damage(scene.rows(keys.PAYLOAD)[-1][0])

    with pytest.raises(CorruptRecord, match="checksum of its payload"):
        scene.payload()


def test_a_payload_that_lacks_its_end_is_noticed() -> None:
    scene = Scene()
    scene.publish(new(payload=payload_of(100_000)))
    txn = scene.engine.begin(bytes_max=0)
    txn.delete(scene.rows(keys.PAYLOAD)[-1][0])
    txn.commit()

    with pytest.raises(CorruptRecord, match="checksum of its payload"):
        scene.payload()
