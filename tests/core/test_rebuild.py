"""What is rebuilt of a sound store is that store; of a store that lacks rows it is one without contradictions."""

from dataclasses import replace

import pytest

from qbroker_server.core import check, keys, rebuild
from qbroker_server.core.lease import Outcome
from qbroker_server.core.rebuild import Lost
from qbroker_server.core.records import Extras
from qbroker_server.engines.pages import Rows
from tests.core.test_check import healthy
from tests.core.test_periodic import put
from tests.support.scene import Scene, new
from tests.support.workflows import chain, group, workflow

REMINDERS = keys.TIME


def full() -> Scene:
    """Messages in each stage, a workflow that is half done, an entry."""
    scene = healthy()
    put(scene)
    scene.publish(workflow(chain(group("a", "b", "c"), "body", "last")))
    scene.publish(
        replace(
            new("only", eta_ms=scene.now_ms + 9), extras=Extras(unique_key="k", labels=("x=1",))
        )
    )
    scene.report(prefetch_count=20)
    for delivery in scene.take():
        if delivery.id in ("a", "b"):
            scene.settle(delivery)
        elif delivery.id == "large":
            scene.settle(delivery, Outcome.REJECTED)
    scene.report(prefetch_count=0)
    scene.publish(new("ready2"))
    return scene


def rows_of(scene: Scene) -> dict[bytes, bytes]:
    with scene.engine.read() as txn:
        return dict(txn.scan(b"\x00", b"\xff", 2**31))


def rebuilt(rows: dict[bytes, bytes]) -> tuple[dict[bytes, bytes], list[Lost]]:
    return rebuild.rebuild(Rows(rows), {}, 1_000)


def test_of_a_sound_store_all_rows_are_rebuilt_and_nothing_is_lost() -> None:
    rows = rows_of(full())

    found, lost = rebuilt(rows)

    assert lost == []
    assert {k: v for k, v in found.items() if not k.startswith(REMINDERS)} == {
        k: v for k, v in rows.items() if not k.startswith(REMINDERS)
    }


@pytest.mark.parametrize(
    "family",
    [
        keys.READY,
        keys.LEASE,
        keys.TIME,
        keys.INDEX,
        keys.DEAD,
        keys.UNIQUE,
        keys.WAITER,
        keys.VALUE,
    ],
)
def test_a_family_that_follows_from_the_records_costs_nothing(family: bytes) -> None:
    rows = rows_of(full())

    assert any(key.startswith(family) for key in rows)

    found, lost = rebuilt({k: v for k, v in rows.items() if not k.startswith(family)})

    assert lost == []
    assert check.faults(Rows(found)) == []
    if family != keys.TIME:
        assert {k for k in found if k.startswith(family)} == {
            k for k in rows if k.startswith(family)
        }


@pytest.mark.parametrize("family", [keys.QUEUE, keys.PAYLOAD, keys.JOIN, keys.WORKFLOW, keys.ENTRY])
def test_facts_that_are_gone_leave_no_contradiction(family: bytes) -> None:
    rows = rows_of(full())

    found, _ = rebuilt({k: v for k, v in rows.items() if not k.startswith(family)})

    assert check.faults(Rows(found)) == []


def test_every_single_row_can_be_missing_or_damaged_without_a_contradiction() -> None:
    rows = rows_of(full())

    for key, raw in rows.items():
        without, _ = rebuilt({k: v for k, v in rows.items() if k != key})
        damaged, _ = rebuilt({**rows, key: bytes(byte ^ 16 for byte in raw)})

        assert check.faults(Rows(without)) == [], key
        assert check.faults(Rows(damaged)) == [], key


def test_a_lost_message_is_named_with_its_queue() -> None:
    rows = rows_of(healthy())
    del rows[keys.MESSAGE + b"ready"]

    _, lost = rebuilt(rows)

    assert (
        Lost("message", "ready", "it waited in queue 'celery'; its record cannot be read") in lost
    )


def test_the_newest_of_several_values_of_a_record_counts() -> None:
    scene = Scene()
    scene.register(prefetch_count=1)
    scene.publish(new("m"))
    older = rows_of(scene)[keys.MESSAGE + b"m"]
    scene.settle(scene.take()[0])
    rows = rows_of(scene)
    newer = rows[keys.MESSAGE + b"m"]

    found, _ = rebuild.rebuild(
        Rows({**rows, keys.MESSAGE + b"m": older}), {keys.MESSAGE + b"m": [newer]}, 1
    )

    assert found[keys.MESSAGE + b"m"] == newer
