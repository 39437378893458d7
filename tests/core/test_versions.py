"""Which versions of records a store holds, and how each of them is read."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from qbroker_server.broker import Broker
from qbroker_server.core import (
    frame,
    joins,
    keys,
    message,
    periodic,
    records,
    routes,
    versions,
    workflows,
)
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import NewerVersion
from qbroker_server.core.joins import Cause, Join
from qbroker_server.core.periodic import Definition, Entry
from qbroker_server.core.records import Extras, Limit, QueueOptions, QueueRecord, Record, Wait
from qbroker_server.core.routes import Binding, Exchange
from qbroker_server.core.workflows import Workflow
from tests.support.scene import Scene, new

EXPECTED: dict[str, object] = {
    "messages": Record(
        stage=2,
        flags=65,
        priority=3,
        end_reason=0,
        attempt=2,
        deaths=1,
        deaths_max=4,
        retries=5,
        size=6,
        seq=7,
        published_ms=8,
        eta_ms=9,
        expires_ms=10,
        result_ttl_ms=-1,
        changed_ms=12,
        queue="queue-ü",
        task="proj.add",
        session="s1",
        lane=b"\x01lane",
        state="PROGRESS",
        detail="a sentence",
        extras=Extras(
            "key",
            2,
            13,
            (Limit("limit", 1.5, 1000, 2),),
            "tenant",
            3,
            ("name=value",),
            "root",
            "workflow",
            ("join", 1),
            Wait("other", True, False, 14, 15),
            [[1, "retry", 16, "s0", "line"]],
            17,
        ),
        payload=b"payload\x00",
    ),
    "queues": QueueRecord(
        1, 2, 3, 4, 5, QueueOptions(6, 7, "drop-head", 8, 9, 10, 11, 12, 13, "by", "why", True)
    ),
    "joins": Join(
        2,
        True,
        ("outer", 1),
        "entry",
        "workflow",
        1,
        3,
        False,
        Cause("m1", "FAILURE", 1, "detail", "ValueError('x')", b"result", True, 18),
    ),
    "workflows": Workflow(1, "proj.add", "m1", 3, 2, 1, 4),
    "exchanges": Exchange("logs", "topic", True, "other"),
    "bindings": Binding("logs", "celery", "a.*", False, {"x-match": "any", "a": 1}),
    "schedules": Entry(
        Definition("every 10", b"template", "skip", "all", 1, 2, 3, 4, 5, 6, 7, 8),
        "app",
        "digest",
        1,
        2,
        3,
        "by",
        "why",
        4,
        5,
        6,
        7,
        "m1",
        "note",
    ),
}
"""What the records in stored.json hold. A field that a later version adds has its default here."""

STORED: dict[str, dict[str, str]] = json.loads(
    Path(__file__).with_name("stored.json").read_text("utf-8")
)
"""Each kind of record as every version wrote it, in hex. Records are only added."""

DECODE: dict[str, Callable[[bytes, bytes], object]] = {
    "messages": records.decode,
    "queues": records.decode_queue,
    "joins": joins.decode_join,
    "workflows": workflows.decode_workflow,
    "exchanges": lambda key, raw: Exchange(**routes.decode(key, raw)),  # type: ignore[arg-type] # as it was written
    "bindings": lambda key, raw: Binding(**routes.decode(key, raw)),  # type: ignore[arg-type] # as it was written
    "schedules": periodic.decode,
}
ENCODE: dict[str, Callable[..., bytes]] = {
    "messages": records.encode,
    "queues": records.encode_queue,
    "joins": joins.encode_join,
    "workflows": workflows.encode_workflow,
    "exchanges": routes.encode,
    "bindings": routes.encode,
    "schedules": periodic.encode,
}
LAYOUTS = {
    "messages": frame.LITTLE,
    "queues": frame.LITTLE,
    "joins": frame.LITTLE,
    "workflows": frame.BIG,
    "exchanges": frame.BIG,
    "bindings": frame.BIG,
    "schedules": frame.BIG,
}


def ours(**raised: int) -> dict[str, int]:
    """The versions of a broker that has raised some."""
    return versions.known() | raised


def rows(scene: Scene) -> list[tuple[bytes, bytes]]:
    """All that is stored."""
    with scene.engine.read() as txn:
        return list(txn.scan(b"\x00", b"\xff", 10_000))


def store(scene: Scene, key: bytes, raw: bytes) -> None:
    """Write one row by hand."""
    txn = scene.engine.begin(bytes_max=1_000)
    txn.put(key, raw)
    txn.commit()


@pytest.mark.parametrize(
    ("kind", "version"), [(kind, version) for kind in STORED for version in STORED[kind]]
)
def test_a_record_of_every_version_that_was_ever_written_is_read(kind: str, version: str) -> None:
    raw = bytes.fromhex(STORED[kind][version])

    found = DECODE[kind](b"key", raw)

    assert found == EXPECTED[kind]


@pytest.mark.parametrize("kind", EXPECTED)
def test_the_version_that_is_written_today_has_a_stored_record(kind: str) -> None:
    raw = ENCODE[kind](EXPECTED[kind])

    assert STORED[kind][str(raw[0])] == raw.hex()


@pytest.mark.parametrize("kind", EXPECTED)
def test_a_record_of_a_newer_version_is_refused_with_both_versions(kind: str) -> None:
    newer = ENCODE[kind](EXPECTED[kind])[0] + 1
    raw = frame.seal(LAYOUTS[kind], newer, b"nothing that is known today")

    with pytest.raises(NewerVersion, match=f"version {newer}, .* up to {newer - 1}$"):
        DECODE[kind](b"key", raw)


def test_a_raised_version_reads_queued_messages_by_their_own_reader() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"), new("c"))
    read_by_new: list[bytes] = []
    readers = {**records.READERS, records.VERSION + 1: lambda key, _: read_by_new.append(key)}

    raised = Broker(
        scene.engine, scene.clock, Policy(), lambda: ours(messages=records.VERSION + 1)
    ).recover()

    with scene.engine.read() as txn:
        found = [
            frame.read(frame.LITTLE, key, raw, records.VERSION + 1, readers)
            for key, raw in txn.scan(keys.MESSAGE, keys.after(keys.MESSAGE), 10)
        ]
    assert [record.stage for record in found if record] == [records.Stage.QUEUED] * 3
    assert (raised.ready_count, read_by_new) == (3, [])


def test_a_store_of_a_newer_broker_stops_the_start_and_stays_as_it_is() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"), new("c"))
    newer = ours(messages=records.VERSION + 1)
    Broker(scene.engine, scene.clock, Policy(), lambda: newer).recover()
    before = rows(scene)

    with pytest.raises(NewerVersion) as refused:
        scene.restart()

    assert str(refused.value) == (
        f"the format of messages in the store has version {records.VERSION + 1}, "
        f"and this broker reads versions up to {records.VERSION}"
    )
    assert rows(scene) == before


def test_a_kind_of_record_that_is_not_known_stops_the_start() -> None:
    scene = Scene()
    Broker(scene.engine, scene.clock, Policy(), lambda: ours(tenants=1)).recover()

    with pytest.raises(NewerVersion, match="the format of tenants in the store has version 1"):
        scene.restart()


def test_a_start_whose_versions_the_store_names_writes_nothing() -> None:
    scene = Scene()
    newer = ours(messages=records.VERSION + 1)
    Broker(scene.engine, scene.clock, Policy(), lambda: newer).recover()
    before = rows(scene)

    Broker(scene.engine, scene.clock, Policy(), lambda: newer).recover()

    assert rows(scene) == before


def test_a_newer_message_that_is_met_later_stops_the_step_and_is_not_put_aside() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    store(scene, message.key_of("a"), frame.seal(frame.LITTLE, records.VERSION + 1, b"newer"))
    before = rows(scene)

    with pytest.raises(NewerVersion):
        scene.register()

    assert rows(scene) == before


def test_a_message_with_a_flipped_version_byte_is_put_aside_and_told() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    with scene.engine.read() as txn:
        raw = txn.get(message.key_of("a"))
    assert raw is not None
    store(scene, message.key_of("a"), bytes((raw[0] ^ 2,)) + raw[1:])

    scene.register()

    assert [delivery.id for delivery in scene.take()] == ["b"]
    assert keys.DAMAGED + b"a" in dict(rows(scene))


def test_a_damaged_row_of_versions_does_not_stop_the_start() -> None:
    scene = Scene()
    scene.publish(new("a"))
    store(scene, keys.VERSIONS, b"\x01not a frame")

    scene.restart()

    assert scene.recovered.ready_count == 1
