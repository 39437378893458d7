"""What a step did, and the sums it keeps."""

from qbroker_server.core import keys
from qbroker_server.core.effects import Effects, Policy
from qbroker_server.core.publish import Publish
from tests.support.engines import FlakyEngine
from tests.support.scene import QUEUE, Scene, new


def test_numbers_rise_over_steps_and_restarts() -> None:
    scene = Scene()
    scene.publish(new("a"), new("b"))
    scene.restart()
    scene.publish(new("c"))

    seqs = [scene.record(id_).seq for id_ in "abc"]

    assert seqs == sorted(set(seqs))


def test_a_step_that_failed_gives_its_numbers_back_or_skips_them_but_never_twice() -> None:
    engine = FlakyEngine()
    scene = Scene(engine)
    scene.publish(new("a"))
    engine.failure = OSError("no")
    scene.broker.submit(Publish((new("b"),)), lambda _: None)
    step = scene.broker.decide()
    step.txn.abort()
    engine.failure = None

    scene.publish(new("b"), new("c"))

    seqs = [scene.record(id_).seq for id_ in "abc"]
    assert seqs == sorted(set(seqs))


def test_a_damaged_count_begins_anew_and_is_told() -> None:
    scene = Scene()
    scene.publish(new())
    scene.damage(keys.QUEUE + QUEUE.encode())
    effects = Effects(Policy(), 0)
    txn = scene.engine.begin(bytes_max=0)

    record = effects.queue(txn, QUEUE)

    assert (record.ready_count, record.leased_count, record.scheduled_count) == (0, 0, 0)
    assert len(effects.damaged) == 1


def test_freed_leases_are_summed_by_session() -> None:
    effects = Effects(Policy(), 0)

    for session in ("s1", "s2", "s1"):
        effects.free(session)

    assert effects.freed == {"s1": 2, "s2": 1}
