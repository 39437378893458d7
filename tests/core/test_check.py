"""The check finds what is wrong: a store healthy but for one thing is told of that thing."""

from collections.abc import Callable

import pytest

from qbroker_server.core import keys, timetable
from tests.support.scene import QUEUE, Scene, new


def healthy() -> Scene:
    """One message in each stage, and one with a large payload."""
    scene = Scene()
    scene.register(prefetch_count=3)
    scene.publish(*(new(f"l{n}") for n in range(3)))
    done, started, _ = scene.take()
    scene.settle(done)
    scene.take()
    scene.start(started)
    scene.report(prefetch_count=0)
    scene.publish(
        new("ready"), new("later", eta_ms=scene.now_ms + 9), new("large", payload=b"x" * 4_000)
    )
    return scene


def drop(family: bytes) -> Callable[[Scene], None]:
    """Remove the first row of a family."""

    def breaks(scene: Scene) -> None:
        txn = scene.engine.begin(bytes_max=0)
        txn.delete(scene.rows(family)[0][0])
        txn.commit()

    return breaks


def drop_reminder(kind: bytes) -> Callable[[Scene], None]:
    """Remove the reminders of a kind."""

    def breaks(scene: Scene) -> None:
        txn = scene.engine.begin(bytes_max=0)
        for key, _ in scene.rows(keys.TIME):
            if key[len(keys.TIME) + 8 :].startswith(kind):
                txn.delete(key)
        txn.commit()

    return breaks


def test_a_healthy_store_has_no_faults() -> None:
    assert healthy().faults() == []


@pytest.mark.parametrize(
    ("breaks", "words"),
    [
        (drop(keys.READY), "is queued but stands in 0 places"),
        (drop(keys.LEASE), "is leased but held 0 times"),
        (drop(keys.QUEUE), f"queue '{QUEUE}' counts 0 ready, there are 2"),
        (drop(keys.PAYLOAD), "its record says True"),
        (drop_reminder(timetable.DUE), "'later' is scheduled but nothing reminds of it"),
        (drop_reminder(timetable.FORGET), "has ended but nothing reminds to forget it"),
        (lambda scene: scene.damage(keys.MESSAGE + b"ready"), "the checksum differs"),
        (lambda scene: scene.damage(scene.rows(keys.PAYLOAD)[0][0]), "checksum of its payload"),
        (
            lambda scene: scene.write(keys.READY + b"q\x00\x00" + bytes(9), b"ready"),
            "its record says otherwise",
        ),
        (
            lambda scene: scene.write(keys.READY + b"q\x00\x00" + bytes(9), b"nobody"),
            "'nobody' stands in a queue but has no record",
        ),
        (
            lambda scene: scene.write(keys.LEASE + b"s9\x00ready", keys.U32.pack(1)),
            "holds attempt 1 of 'ready', its record says otherwise",
        ),
        (
            lambda scene: scene.write(keys.PAYLOAD + b"gone\x00" + bytes(4), b"x"),
            "'gone' has a payload but no record",
        ),
    ],
)
def test_a_fault_is_found_and_told(breaks: Callable[[Scene], None], words: str) -> None:
    scene = healthy()

    breaks(scene)

    assert any(words in fault for fault in scene.faults()), scene.faults()
