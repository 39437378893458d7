"""A workflow that failed goes on from where it stopped."""

import pytest

from qbroker_server.core import dead, keys
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Conflict, NotFound
from qbroker_server.core.lease import Outcome
from qbroker_server.core.records import Stage
from qbroker_server.core.retry import RetryWorkflow
from tests.support.scene import Scene
from tests.support.workflows import chain, group, workflow


def failed() -> Scene:
    """A chord of a and b with the body c and d after that, of which b has failed."""
    scene = Scene()
    scene.register()
    scene.publish(workflow(chain(group("a", "b"), "c", "d")))
    a, b = scene.take()
    scene.settle(a, result=b"1")
    scene.settle(b, Outcome.FAILURE, b"boom")
    for errback in scene.take():
        scene.settle(errback)
    return scene


def test_what_failed_runs_again_and_what_it_kept_waiting_waits_again() -> None:
    scene = failed()

    assert scene.do(RetryWorkflow("w")) == (1, 2, "")

    assert scene.record("c").stage == Stage.WAITING
    b = scene.take_one()
    assert (b.id, b.payload) == ("b", b"body")
    scene.settle(b, result=b"2")
    c = scene.take_one()
    assert [value[1:] for value in c.inputs] == [b"1", b"2"]
    scene.settle(c)
    scene.settle(scene.take_one())
    assert [scene.record(name).state for name in "abcd"] == ["SUCCESS"] * 4
    assert scene.rows(keys.JOIN) == []
    assert scene.faults() == []


def test_it_may_fail_again_and_be_tried_again() -> None:
    scene = failed()
    scene.do(RetryWorkflow("w"))

    scene.settle(scene.take_one(), Outcome.FAILURE, b"boom")
    assert scene.record("d").state == "FAILURE"
    scene.do(RetryWorkflow("w"))
    scene.settle(scene.take_one(), result=b"2")

    assert scene.take_ids() == ["c"]
    assert scene.faults() == []


def test_a_body_that_failed_itself_gets_its_values_again() -> None:
    scene = Scene()
    scene.register()
    scene.publish(workflow(chain("a", "b")))
    scene.settle(scene.take_one(), result=b"1")
    scene.settle(scene.take_one(), Outcome.FAILURE, b"boom")
    scene.settle(scene.take_one())

    scene.do(RetryWorkflow("w"))

    b = scene.take_one()
    assert (b.id, [value[1:] for value in b.inputs]) == ("b", [b"1"])
    scene.settle(b)
    assert scene.faults() == []


def test_a_dead_letter_of_it_is_dug_out() -> None:
    scene = Scene()
    scene.register()
    scene.publish(workflow(chain("a", "b")))
    scene.settle(scene.take_one(), Outcome.REJECTED, b"")

    scene.do(RetryWorkflow("w"))

    assert "a" in scene.take_ids()
    assert scene.broker.read(lambda txn: dead.find(txn, None, 10)) == []
    assert scene.faults() == []


def test_what_waits_for_a_message_that_cannot_be_tried_again_is_left_as_it_is() -> None:
    scene = failed()
    scene.damage(keys.MESSAGE + b"b")

    assert scene.do(RetryWorkflow("w")) == (0, 0, "")

    assert [scene.record(name).state for name in "cd"] == ["FAILURE"] * 2


def test_a_workflow_of_which_a_part_was_forgotten_is_not_tried_again() -> None:
    scene = Scene(policy=Policy(result_ttl_ms=100))
    scene.register()
    scene.publish(workflow(chain(group("a", "b"), "c")))
    a, b = scene.take()
    scene.settle(a)
    scene.pass_time(100)
    scene.settle(b, Outcome.FAILURE)

    with pytest.raises(Conflict, match="1 of the 3 tasks of workflow 'w' have been forgotten"):
        scene.do(RetryWorkflow("w"))
    with pytest.raises(NotFound, match="no workflow 'x'"):
        scene.do(RetryWorkflow("x"))
