"""A workflow is counted as it ends, stored whole or not at all, and forgotten when nothing of it is kept."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from qbroker_server.core import dead, index, keys, workflows
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.lease import Outcome
from qbroker_server.core.publish import NewJoin, NewWorkflow
from qbroker_server.core.queue import Declare
from qbroker_server.core.records import Extras, QueueOptions, Wait
from qbroker_server.core.retry import RetryWorkflow
from qbroker_server.core.revoke import Revoke, RevokeIndexed
from tests.support.scene import Scene, new
from tests.support.workflows import Word, chain, group, workflow


def look(scene: Scene) -> workflows.Workflow:
    """The workflow as it is stored."""
    found = scene.broker.read(lambda txn: workflows.peek(txn, "w"))
    assert found is not None
    return found


def test_it_counts_what_ended_and_what_failed() -> None:
    scene = Scene()
    scene.register()
    scene.publish(workflow(chain(group("a", "b"), "c")))
    a, b = scene.take()

    scene.settle(a)
    scene.settle(b, Outcome.FAILURE, b"boom")

    found = look(scene)
    assert (found.message_count, found.ended_count, found.failed_count) == (3, 3, 2)
    assert (found.task, found.root_id) == ("proj.add", "a")
    assert scene.broker.read(lambda txn: workflows.page(txn, "", 10)) == [("w", found)]


def test_it_is_forgotten_with_its_results() -> None:
    scene = Scene(policy=Policy(result_ttl_ms=100))
    scene.register()
    scene.publish(workflow(chain(group("a", "b"), "c")))
    for delivery in scene.take():
        scene.settle(delivery, Outcome.FAILURE)
    for errback in scene.take():
        scene.settle(errback)

    scene.pass_time(99)
    assert look(scene).ended_count == 3
    scene.pass_time(100)

    for family in (keys.WORKFLOW, keys.JOIN, keys.VALUE, keys.MESSAGE, keys.INDEX, keys.STATUS):
        assert scene.rows(family) == []


def test_publishing_it_again_is_a_no_op() -> None:
    scene = Scene()
    flow = workflow(chain("a", "b"))
    scene.publish(flow)

    again = scene.publish(flow)

    assert again.duplicates == (0,)
    assert scene.faults() == []


def test_a_canvas_that_has_ended_may_be_sent_again_with_the_same_ids() -> None:
    scene = Scene()
    scene.register()
    word = chain(group("a", "b"), "c")
    scene.publish(workflow(word))
    early = scene.publish(workflow(word, "w2"))
    a, b = scene.take()
    scene.settle(a, Outcome.FAILURE, b"boom")
    scene.settle(b)
    for errback in scene.take():
        scene.settle(errback)

    again = scene.publish(workflow(word, "w3"))
    for delivery in scene.take():
        scene.settle(delivery, result=b"2")
    scene.settle(scene.take_one())

    assert "id 'a' is in use: its task is leased in queue 'celery'" in str(early.refusals[0][1])
    assert not again.refusals
    assert [scene.record(name).state for name in "abc"] == ["SUCCESS"] * 3
    assert scene.faults() == []


def _wait_for_time(scene: Scene) -> None:
    scene.publish(new("a", queue="slow", eta_ms=scene.now_ms + 1_000))


def _wait_for_a_worker(scene: Scene) -> None:
    scene.publish(new("a", queue="slow"))


def _wait_for_a_join(scene: Scene) -> None:
    first, second = workflow(chain("first", "a"), "earlier").messages
    joins = workflow(chain("first", "a"), "earlier").joins
    scene.publish(NewWorkflow("earlier", (first, replace(second, queue="slow")), joins))


def _be_with_a_worker(scene: Scene) -> None:
    scene.register(queues=("slow",))
    scene.publish(new("a", queue="slow"))


def _run(scene: Scene) -> None:
    _be_with_a_worker(scene)
    scene.start(scene.take_one())


def _be_given_up(scene: Scene) -> None:
    _be_with_a_worker(scene)
    scene.settle(scene.take_one(), Outcome.REJECTED, b"")


@pytest.mark.parametrize(
    ("begin", "where"),
    [
        (_wait_for_time, "its task is scheduled in queue 'slow'"),
        (_wait_for_a_worker, "its task is queued in queue 'slow'"),
        (_wait_for_a_join, "its task is waiting in queue 'slow'"),
        (_be_with_a_worker, "its task is leased in queue 'slow'"),
        (_run, "its task is started in queue 'slow'"),
        (_be_given_up, "it is a dead letter of queue 'slow'"),
    ],
)
@pytest.mark.parametrize("word", [chain("a", "b"), group("a", "b"), chain(group("a", "b"), "c")])
def test_a_workflow_with_an_id_in_use_is_refused_and_told_where_its_task_is(
    begin: Callable[[Scene], None], where: str, word: Word
) -> None:
    scene = Scene()
    begin(scene)

    published = scene.publish(workflow(word, "later"))

    ((_, error),) = published.refusals
    assert f"id 'a' is in use: {where}. Give the call another task_id, or " in str(error)
    assert "qctl" in str(error)
    assert scene.find("b") is None
    assert scene.faults() == []


def test_a_workflow_whose_join_is_in_use_is_told_by_which_workflow() -> None:
    scene = Scene()
    flow = workflow(chain("a", "b"), "earlier")
    scene.publish(flow)
    others = workflow(chain("c", "d"), "later")
    renamed = NewJoin(flow.joins[0].id, 1, others.joins[0].is_list)
    member, waiter = others.messages
    assert member.extras is not None
    assert waiter.extras is not None
    assert waiter.extras.wait is not None
    place = (renamed.id, 0)
    wait = replace(waiter.extras.wait, join_id=renamed.id)
    messages = (
        replace(member, extras=replace(member.extras, place=place)),
        replace(waiter, extras=replace(waiter.extras, wait=wait)),
    )

    published = scene.publish(NewWorkflow("later", messages, (renamed,)))

    ((_, error),) = published.refusals
    assert "is in use: it waits in workflow 'earlier' for 1 of its 1 members" in str(error)


def test_a_refused_message_refuses_the_whole_and_its_neighbours_are_stored() -> None:
    scene = Scene()
    flow = workflow(chain("a", "b"))
    bad = replace(flow, messages=(flow.messages[0], replace(flow.messages[1], priority=10)))

    published = scene.publish(new("m1"), bad, new("m2"))

    assert [place for place, _ in published.refusals] == [1]
    assert scene.find("a") is None
    assert scene.rows(keys.JOIN) == []
    assert scene.record("m2").queue == "celery"


def test_a_taken_unique_key_refuses_the_whole() -> None:
    scene = Scene()
    scene.publish(replace(new("m1"), extras=Extras(unique_key="k")))
    flow = workflow(group("a", "b"))
    last = flow.messages[1]
    assert last.extras is not None
    keyed = replace(last, extras=replace(last.extras, unique_key="k"))

    published = scene.publish(replace(flow, messages=(flow.messages[0], keyed)))

    assert published.existing == ((0, "m1"),)
    assert len(published.refusals) == 1
    assert scene.find("a") is None


def test_a_queue_without_room_for_all_of_it_refuses_the_whole() -> None:
    scene = Scene()
    scene.do(Declare("celery", QueueOptions(length_max=2)))

    published = scene.publish(workflow(group("a", "b", "c")))

    (refusal,) = published.refusals
    assert "no room for the 3 messages of workflow 'w'" in str(refusal[1])
    assert scene.find("a") is None


@pytest.mark.parametrize(
    ("flow", "reason"),
    [
        (NewWorkflow("w", ()), "has no messages"),
        (
            NewWorkflow("w", (replace(new("a"), extras=Extras(place=("j", 0))),)),
            "not a join of workflow",
        ),
        (
            NewWorkflow(
                "w",
                (replace(new("a"), extras=Extras(place=("j", 0))),),
                (NewJoin("j", 2, True),),
            ),
            "has 1 of its 2 members",
        ),
        (
            NewWorkflow(
                "w",
                (
                    replace(
                        new("a"),
                        extras=Extras(place=("j", 0), wait=Wait("j", True, False, 0, 0)),
                    ),
                ),
                (NewJoin("j", 1, False),),
            ),
            "goes in a circle",
        ),
        (
            NewWorkflow(
                "w", (replace(new("a"), extras=Extras(wait=Wait("x", True, False, 0, 0))),)
            ),
            "waits for 'x', which is not a join",
        ),
        (NewWorkflow("w", (new("a"), new("a"))), "two messages or two joins of one id"),
    ],
)
def test_a_workflow_that_could_never_end_is_refused_with_the_reason(
    flow: NewWorkflow, reason: str
) -> None:
    scene = Scene()

    published = scene.publish(flow)

    assert reason in str(published.refusals[0][1])
    assert scene.rows(keys.MESSAGE) == []


def test_a_message_alone_cannot_wait() -> None:
    published = Scene().publish(replace(new("a"), extras=Extras(place=("j", 0))))

    assert "names a join, but was published without one" in str(published.refusals[0][1])


def test_it_is_cancelled_as_a_whole() -> None:
    scene = Scene()
    scene.publish(workflow(chain(group("a", "b"), "c")))

    revoked, _ = scene.do(RevokeIndexed(index.WORKFLOW, "w"))

    assert set(revoked.ended) == {"a", "b", "c"}
    assert [scene.record(name).state for name in "abc"] == ["REVOKED"] * 3
    assert scene.faults() == []


def test_a_record_survives_its_encoding_and_a_damaged_one_only_stops_counting() -> None:
    found = workflows.Workflow(1, "t", "a", 3, 1, 0, 7)
    raw = workflows.encode_workflow(found)
    assert workflows.decode_workflow(b"k", raw) == found
    with pytest.raises(CorruptRecord, match="checksum"):
        workflows.decode_workflow(b"k", raw[:-1] + b"?")

    scene = Scene()
    scene.register()
    scene.publish(workflow(chain("a", "b")))
    scene.damage(keys.WORKFLOW + b"w")
    scene.settle(scene.take_one())

    assert scene.take_ids() == ["b"]


def test_a_dead_letter_that_runs_again_is_counted_once() -> None:
    scene = Scene()
    scene.register()
    scene.publish(workflow(group("a", "b", "c")))
    a, b, c = scene.take()
    scene.settle(a, Outcome.REJECTED, b"")
    scene.settle(b)
    assert look(scene).failed_count == 1

    scene.do(dead.Requeue(("a",)))
    (again,) = [delivery for delivery in scene.take() if delivery.id == "a"]
    scene.settle(again)

    flow = look(scene)
    assert (flow.message_count, flow.ended_count, flow.failed_count) == (3, 2, 0)
    assert scene.faults() == []
    del c


def test_a_member_that_is_revoked_while_it_waits_stands_before_no_join() -> None:
    scene = Scene()
    scene.register()
    scene.publish(workflow(chain("a", "b")))

    scene.do(Revoke(("b",)))

    assert scene.record("b").state == "REVOKED"
    assert scene.rows(keys.WAITER) == []
    scene.settle(scene.take_one())
    scene.do(RetryWorkflow("w"))
    assert "b" in scene.take_ids()
    assert scene.faults() == []
