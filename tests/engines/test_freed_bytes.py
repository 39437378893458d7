"""The store has the bytes of a body back at once, however its message ends; also where bodies are small."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qbroker_server.core.dead import Remove
from qbroker_server.core.lease import Outcome
from qbroker_server.core.queue import Purge
from qbroker_server.core.records import Flag
from qbroker_server.core.results import Forget
from qbroker_server.core.revoke import Revoke
from qbroker_server.engines.lmdb import LmdbEngine
from tests.support.scene import QUEUE, Scene, done, new

COUNT = 600
IDS = [f"m{number:05}" for number in range(COUNT)]
BODY = b"x" * 900


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[LmdbEngine]:
    made = LmdbEngine(tmp_path)
    yield made
    made.close()


def purged(scene: Scene) -> None:
    while scene.do(Purge(QUEUE)):
        pass


def revoked(scene: Scene) -> None:
    scene.do(Revoke(tuple(IDS)))


def expired(scene: Scene) -> None:
    scene.pass_time(60_000)


def settled(outcome: Outcome) -> Callable[[Scene], None]:
    def settle(scene: Scene) -> None:
        scene.register(prefetch_count=COUNT)
        answers = [done(delivery, outcome) for delivery in scene.take()]
        assert not scene.report(settles=answers).lost

    return settle


def buried_and_removed(scene: Scene) -> None:
    settled(Outcome.REJECTED)(scene)
    scene.do(Remove(tuple(IDS)))


@pytest.mark.parametrize(
    "end",
    [
        purged,
        revoked,
        expired,
        settled(Outcome.SUCCESS),
        settled(Outcome.FAILURE),
        settled(Outcome.IGNORED),
        buried_and_removed,
    ],
    ids=["purged", "revoked", "expired", "succeeded", "failed", "ignored", "dead and removed"],
)
@pytest.mark.parametrize("flags", [0, Flag.IGNORE_RESULT], ids=["result kept", "result ignored"])
def test_the_store_shrinks_when_messages_end(
    engine: LmdbEngine, end: Callable[[Scene], None], flags: int
) -> None:
    scene = Scene(engine)
    expires_ms = scene.now_ms + 30_000 if end is expired else 0
    empty = engine.stored_bytes()
    scene.publish(*(new(one, payload=BODY, expires_ms=expires_ms, flags=flags) for one in IDS))
    full = engine.stored_bytes()

    end(scene)

    assert engine.stored_bytes() - empty < (full - empty) * 0.55
    assert scene.faults() == []


def test_a_forgotten_result_gives_its_bytes_back(engine: LmdbEngine) -> None:
    scene = Scene(engine)
    scene.register(prefetch_count=COUNT)
    scene.publish(*(new(one) for one in IDS))
    scene.report(settles=[done(delivery, result=BODY) for delivery in scene.take()])
    full = engine.stored_bytes()

    scene.do(Forget(tuple(IDS)))

    assert engine.stored_bytes() < full * 0.6


def test_a_dead_letter_keeps_its_body(engine: LmdbEngine) -> None:
    scene = Scene(engine)
    scene.publish(*(new(one, payload=BODY) for one in IDS))
    full = engine.stored_bytes()

    settled(Outcome.REJECTED)(scene)

    assert engine.stored_bytes() > full * 0.8
    assert scene.payload(IDS[0]) == BODY
