"""A refused command has written nothing, whatever it was refused for."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings, strategies as st

from qbroker_proto.v1 import message_pb2
from qbroker_server.core import dead, periodic, queue, results, retry, routing
from qbroker_server.core.command import Command
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import CoreError
from qbroker_server.core.lease import Consume, Outcome, Register
from qbroker_server.core.periodic import Definition
from qbroker_server.core.publish import NewJoin, NewMessage, NewWorkflow, Publish, Published
from qbroker_server.core.records import Extras, QueueOptions, Wait
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.schedule import Reschedule
from qbroker_server.core.unique import UniquePolicy
from tests.support.almanac import ALMANAC
from tests.support.scene import QUEUE, TASK, Scene, new
from tests.support.workflows import chain, group, workflow

LARGE = b"x" * 1_000


def template(queue_name: str) -> bytes:
    """The message of a schedule."""
    return message_pb2.Message(task=TASK, queue=queue_name, body=b"[]").SerializeToString()


def keyed(
    message_id: str, queue_name: str = "ghost", policy: UniquePolicy = UniquePolicy.REJECT
) -> NewMessage:
    """A message whose unique key is taken in a prepared scene."""
    extras = Extras(unique_key="k")
    return replace(new(message_id, queue=queue_name), extras=extras, unique_policy=policy)


def routed(message_id: str, exchange: str, payload: bytes = b"body") -> NewMessage:
    """A message that is sent to an exchange."""
    return replace(new(message_id, payload=payload), route=Route(exchange, "a.b"))


def of(*messages: NewMessage, join: tuple[NewJoin, ...] = ()) -> NewWorkflow:
    """A workflow whose first queue is not there yet."""
    members = (new("first", queue="ghost2"), *messages)
    return NewWorkflow(
        "other",
        tuple(
            replace(one, extras=replace(one.extras or Extras(), workflow_id="other"))
            for one in members
        ),
        join,
    )


def waiting(message_id: str, join_id: str) -> NewMessage:
    """A member of a workflow that waits for a join."""
    return replace(
        new(message_id, queue="ghost"), extras=Extras(wait=Wait(join_id, True, False, 0, 0))
    )


def tick(timing: str = "", **options: Any) -> Definition:  # noqa: ANN401 - any field of it
    """The definition of a schedule that may be wrong."""
    return Definition(timing or "every 10", template("ghost"), **options)


REFUSED: dict[str, Callable[[], Command[Any]]] = {
    # Of a message.
    "its unique key is taken": lambda: Publish((keyed("x"),)),
    "its unique key is taken, and it asks by whom": lambda: Publish(
        (keyed("x", policy=UniquePolicy.RETURN_EXISTING),)
    ),
    "its queue is full": lambda: Publish((new("x", queue="full"),)),
    "it is too large for its queue": lambda: Publish((new("x", queue="small", payload=LARGE),)),
    "no binding takes it": lambda: Publish((routed("x", "logs-of-nothing"),)),
    "one of its copies has no room": lambda: Publish((routed("x", "all"),)),
    "its id is known": lambda: Publish((new("waits", queue="ghost"),)),
    "its id is no name": lambda: Publish((new("a\nb", queue="ghost"),)),
    "its queue is no name": lambda: Publish((new("x", queue=""),)),
    "its priority is out of bounds": lambda: Publish((new("x", queue="ghost", priority=99),)),
    "it waits for a join and is alone": lambda: Publish((waiting("x", "j"),)),
    "a replacement finds its queue full": lambda: Publish(
        (keyed("x", "full", UniquePolicy.REPLACE),)
    ),
    # Of a workflow.
    "a member's unique key is taken": lambda: Publish((of(keyed("x")),)),
    "a member's queue is full": lambda: Publish((of(new("x", queue="full")),)),
    "a member was published before": lambda: Publish((of(new("waits", queue="ghost")),)),
    "no binding takes a member": lambda: Publish((of(routed("x", "logs-of-nothing")),)),
    "a member waits for what is not there": lambda: Publish((of(waiting("x", "nothing")),)),
    "a join lacks a member": lambda: Publish(
        (of(waiting("x", "j"), join=(NewJoin("j", 2, is_list=True),)),)
    ),
    "the workflow is known": lambda: Publish((workflow(chain("t1", "t2"), "w"),)),
    "a workflow that is not there is tried again": lambda: retry.RetryWorkflow("nothing"),
    # Of one message that is there, or is not.
    "the message to reschedule is not there": lambda: Reschedule("nothing", 0),
    "the message to reschedule has ended": lambda: Reschedule("ended", 0),
    "the message to reschedule is with a worker": lambda: Reschedule("leased", 0),
    "the message to reschedule waits for a join": lambda: Reschedule("t2", 0),
    "the message to reschedule gets no time": lambda: Reschedule("waits", -1),
    "a state is no name": lambda: results.Tell("leased", 0, "", b""),
    "a state is too large": lambda: results.Tell("leased", 0, "PROGRESS", b"x" * 2**22),
    "a result would replace a task": lambda: results.Keep("waits", b"4", 0),
    # Of a queue.
    "the queue exists with other options": lambda: queue.Declare(
        "full", QueueOptions(length_max=7), is_new=True
    ),
    "an option is out of bounds": lambda: queue.Declare("ghost", QueueOptions(length_max=-1)),
    "the queue to resume is not there": lambda: queue.Resume("ghost"),
    "the queue to move is not there": lambda: queue.Move("ghost", "ghost2"),
    "a queue is moved into itself": lambda: queue.Move("ghost", "ghost"),
    "the queue to remove is not there": lambda: queue.Remove("ghost"),
    "the queue to remove is not empty": lambda: queue.Remove("full"),
    "a paused queue is no name": lambda: queue.Pause("", "me", "why"),
    # Of an exchange.
    "the exchange has other properties": lambda: routing.Declare(
        (Exchange("logs", "fanout"),), (routing.QueueDeclaration("ghost"),)
    ),
    "a binding is from an unknown exchange": lambda: routing.Declare(
        queues=(routing.QueueDeclaration("ghost"),), bindings=(Binding("nothing", "ghost2"),)
    ),
    "the exchange to remove is not there": lambda: routing.RemoveExchange("nothing"),
    "the binding to remove is not there": lambda: routing.Unbind(Binding("logs", "ghost")),
    # Of a schedule.
    "the schedule is there": lambda: periodic.Put("tidy", tick(), ALMANAC, is_new=True),
    "the schedule never fires": lambda: periodic.Put("other", tick(end_ms=1), ALMANAC),
    "the timing is none": lambda: periodic.Put("other", tick("never"), ALMANAC),
    "the schedule to remove is not there": lambda: periodic.Remove("nothing"),
    "the schedule to run finds its queue full": lambda: periodic.Run("full", "run1", ALMANAC),
    # Of a worker.
    "a worker consumes from no name": lambda: Consume("s1", ("ghost", "")),
}
"""What a command is refused for, in a prepared scene."""

ACCEPTED: list[Callable[[], Command[Any]]] = [
    lambda: Publish((new("n1"), new("n2", queue="fresh", eta_ms=2**50))),
    lambda: Publish((workflow(group("g1", "g2"), "w2"),)),
    lambda: queue.Declare("fresh", QueueOptions(length_max=9)),
    lambda: queue.Pause(QUEUE, "me", "why"),
    lambda: Revoke(("waits",)),
    lambda: dead.Requeue(("dead",)),
    lambda: Register("s2", "s2@host", ("fresh2",), frozenset(), 1, ()),
]
"""What may share a step with a refused command."""


STORES: dict[str, Callable[[], Command[Any]]] = {
    "a message": lambda: Publish((new("x", queue="ghost"),)),
    "copies": lambda: Publish((routed("x", "all"),)),
    "a workflow": lambda: Publish((of(new("x", queue="ghost")),)),
    "a replacement": lambda: Publish((keyed("x", "ghost", UniquePolicy.REPLACE),)),
    "a result": lambda: results.Keep("ghost", b"4", 0),
    "a schedule": lambda: periodic.Put("other", tick(), ALMANAC),
    "declared schedules": lambda: periodic.Declare("app", (("other", tick()),), ALMANAC),
    "a run by hand": lambda: periodic.Run("tidy", "run1", ALMANAC),
}
"""What stores something, by its kind."""


def prepared() -> Scene:
    """A store with something of everything that can stand against a command."""
    scene = Scene()
    scene.do(queue.Declare("full", QueueOptions(length_max=1)))
    scene.do(queue.Declare("small", QueueOptions(bytes_max=100)))
    bindings = (Binding("all", "full"), Binding("all", "aaa"), Binding("all", "zzz"))
    scene.do(routing.Declare((Exchange("logs", "topic"), Exchange("all", "fanout")), (), bindings))
    scene.register(queues=("gone", "busy"))
    scene.publish(new("ended", queue="gone"), new("dead", queue="gone"))
    for delivery in scene.take():
        scene.settle(delivery, Outcome.SUCCESS if delivery.id == "ended" else Outcome.REJECTED)
    scene.do(queue.Remove("gone"))
    scene.publish(new("leased", queue="busy"))
    scene.publish(new("waits", queue="full"), new("in-small", queue="small", payload=b"y" * 90))
    scene.publish(keyed("holder", QUEUE), workflow(chain("t1", "t2"), "w"))
    scene.do(periodic.Put("tidy", tick(), ALMANAC))
    scene.do(periodic.Put("full", Definition("every 10", template("full")), ALMANAC))
    return scene


def rows(scene: Scene) -> list[tuple[bytes, bytes]]:
    """All that is stored."""
    with scene.engine.read() as txn:
        return list(txn.scan(b"\x00", b"\xff", 1_000_000))


def in_one_step(scene: Scene, commands: Sequence[Command[Any]]) -> list[Any]:
    """The answers of commands that share a transaction."""
    answers: list[Any] = []
    for command in commands:
        scene.broker.submit(command, answers.append)
    scene.step()
    return answers


def is_refused(answer: object) -> bool:
    """Whether the answer is a refusal, also one of a part of a batch."""
    if isinstance(answer, Published):
        return bool(answer.refusals or answer.duplicates or answer.existing)
    return isinstance(answer, CoreError)


@pytest.mark.parametrize("why", REFUSED)
def test_a_refused_command_leaves_the_store_byte_for_byte_as_it_was(why: str) -> None:
    scene = prepared()
    before = rows(scene)

    (answer,) = in_one_step(scene, [REFUSED[why]()])

    assert is_refused(answer), answer
    assert rows(scene) == before


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.sampled_from([*REFUSED, *range(len(ACCEPTED))]), min_size=2, max_size=8, unique=True
    )
)
def test_a_refused_command_leaves_no_trace_among_what_shares_its_step(
    picks: list[str | int],
) -> None:
    mixed, alone = prepared(), prepared()
    accepted = [pick for pick in picks if isinstance(pick, int)]

    answers = in_one_step(
        mixed, [ACCEPTED[p]() if isinstance(p, int) else REFUSED[p]() for p in picks]
    )
    in_one_step(alone, [ACCEPTED[pick]() for pick in accepted])

    # A neighbor may make room for what is refused alone, or take the room.
    assume([is_refused(answer) for answer in answers] == [isinstance(pick, str) for pick in picks])
    assert rows(mixed) == rows(alone)
    assert mixed.faults() == []


@pytest.mark.parametrize("what", STORES)
def test_what_a_nearly_full_disk_refuses_leaves_the_store_as_it_was(what: str) -> None:
    scene = Scene(prepared().engine, Policy(reserve_bytes=2**100))
    scene.step()
    before = rows(scene)

    (answer,) = in_one_step(scene, [STORES[what]()])

    assert is_refused(answer), answer
    assert rows(scene) == before
