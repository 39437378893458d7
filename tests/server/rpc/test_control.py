"""The Control service over real sockets."""

import asyncio
import json
from collections.abc import Iterable
from typing import TypeAlias

import grpc
import pytest

from qbroker_proto.v1.admin_pb2 import (
    Binding,
    DeclareQueueRequest,
    Exchange,
    QueueOptions,
    RevokeRequest,
    Topology,
)
from qbroker_proto.v1.control_pb2 import (
    BroadcastReply,
    BroadcastRequest,
    Consume,
    ControlReply,
    ControlRequest,
    Event,
    EventsReply,
    EventsRequest,
    SendEventsReply,
    SendEventsRequest,
)
from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.worker_pb2 import WorkRequest
from tests.support.served import WAIT_S, Served, Worker, serving, wire

Events: TypeAlias = "grpc.aio.UnaryStreamCall[EventsRequest, EventsReply]"
Telling: TypeAlias = "grpc.aio.StreamStreamCall[SendEventsRequest, SendEventsReply]"


async def ask(served: Served, command: str = "ping", **fields: object) -> list[BroadcastReply]:
    request = BroadcastRequest(command=command, **{"timeout_ms": 10_000, **fields})  # type: ignore[arg-type] # as given
    return [reply async for reply in served.control.Broadcast(request, timeout=WAIT_S)]


async def asked(worker: Worker) -> ControlRequest:
    """The next question the worker hears."""
    while True:
        reply = await worker.hear()
        worker.deliveries += reply.deliveries
        if reply.controls:
            return reply.controls[0]


async def answer(worker: Worker, body: bytes = b'{"ok": "pong"}') -> ControlRequest:
    question = await asked(worker)
    await worker.call.write(WorkRequest(control_replies=[ControlReply(id=question.id, body=body)]))
    return question


async def workers(
    served: Served, *sessions: str, queues: Iterable[str] = ("celery",)
) -> list[Worker]:
    found = [served.work() for _ in sessions]
    for worker, session in zip(found, sessions, strict=True):
        await worker.register(session, queues=queues)
    return found


async def test_all_workers_are_asked_and_the_call_ends_with_the_last_answer() -> None:
    async with serving() as served, asyncio.TaskGroup() as group:
        first, second = await workers(served, "a", "b")

        asking = group.create_task(ask(served, "stats", arguments=b'{"x": 1}', words=["y"]))
        question = await answer(second, b"2")
        await answer(first, b"1")
        replies = await asking

    assert [(reply.worker, reply.body) for reply in replies] == [("b@host", b"2"), ("a@host", b"1")]
    assert (question.command, question.arguments, list(question.words)) == (
        "stats",
        b'{"x": 1}',
        ["y"],
    )


async def test_nobody_connected_is_an_empty_answer_at_once() -> None:
    async with serving() as served:
        assert await ask(served) == []


@pytest.mark.parametrize(
    "chosen",
    [
        {"destination": ["b@host"]},
        {"pattern": "b@*"},
        {"pattern": "[b-z]@", "matcher": "pcre"},
    ],
)
async def test_workers_are_chosen_by_name_or_by_pattern(chosen: dict[str, object]) -> None:
    async with serving() as served, asyncio.TaskGroup() as group:
        _, second = await workers(served, "a", "b")

        asking = group.create_task(ask(served, "ping", **chosen))
        await answer(second)
        replies = await asking

    assert [reply.worker for reply in replies] == ["b@host"]


async def test_a_limit_ends_the_call_with_as_many_answers() -> None:
    async with serving() as served, asyncio.TaskGroup() as group:
        first, _ = await workers(served, "a", "b")

        asking = group.create_task(ask(served, limit=1))
        await answer(first)

        assert [reply.worker for reply in await asking] == ["a@host"]


async def test_who_does_not_answer_in_time_is_named() -> None:
    async with serving() as served, asyncio.TaskGroup() as group:
        first, _ = await workers(served, "a", "b")

        asking = group.create_task(ask(served, timeout_ms=300))
        await answer(first)
        replies = await asking

    assert [(reply.worker, reply.is_missing) for reply in replies] == [
        ("a@host", False),
        ("b@host", True),
    ]


async def test_who_goes_away_while_asked_is_not_waited_for() -> None:
    async with serving() as served, asyncio.TaskGroup() as group:
        (worker,) = await workers(served, "a")

        asking = group.create_task(ask(served))
        await asked(worker)
        worker.call.cancel()

        assert await asking == []


async def test_a_silent_command_is_sent_and_nobody_waits() -> None:
    async with serving() as served:
        (worker,) = await workers(served, "a")

        replies = await ask(served, "shutdown", is_silent=True, timeout_ms=0)

        assert replies == []
        assert (await asked(worker)).command == "shutdown"


@pytest.mark.parametrize(
    "fields",
    [
        {"command": ""},
        {"command": "x" * 256},
        {"timeout_ms": 0},
        {"timeout_ms": 600_001},
        {"pattern": "a", "matcher": "sql"},
        {"pattern": "(", "matcher": "pcre"},
    ],
)
async def test_what_cannot_be_meant_is_refused(fields: dict[str, object]) -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(served, **{"command": "ping", **fields})  # type: ignore[arg-type] # as given

        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert await ask(served) == []


async def test_the_broker_says_itself_what_a_worker_has_and_what_waits_for_its_time() -> None:
    async with serving() as served:
        _, second = await workers(served, "a", "b", queues=["celery"])
        (other,) = await workers(served, "c", queues=["other"])
        del second
        await served.publish(wire("later", eta_ms=2**50), wire("held", queue="other"))
        await other.take()

        reserved = await ask(served, "reserved")
        scheduled = await ask(served, "scheduled")

    def ids(replies: list[BroadcastReply]) -> dict[str, list[str]]:
        return {
            reply.worker: [Message.FromString(one.message).id for one in reply.messages]
            for reply in replies
        }

    assert ids(reserved) == {"a@host": [], "b@host": [], "c@host": ["held"]}
    assert ids(scheduled) == {"a@host": ["later"], "b@host": [], "c@host": []}
    assert scheduled[0].messages[0].eta_ms == 2**50
    assert all(reply.has_messages for reply in reserved + scheduled)


async def test_the_broker_says_itself_what_was_revoked_and_who_takes_from_where() -> None:
    async with serving() as served:
        await workers(served, "a", queues=["foo", "bar"])
        await served.publish(wire("x"))

        await served.admin.Revoke(RevokeRequest(ids=["x", "never"]))

        (revoked,) = await ask(served, "revoked")
        (queues,) = await ask(served, "active_queues")
        (clock,) = await ask(served, "clock")

    assert sorted(json.loads(revoked.body)) == ["never", "x"]
    found = json.loads(queues.body)
    assert [(one["name"], one["exchange"]["type"], one["routing_key"]) for one in found] == [
        ("foo", "direct", "foo"),
        ("bar", "direct", "bar"),
    ]
    assert json.loads(clock.body) == {"clock": 0}


async def test_active_queues_have_their_exchanges_bindings_and_bounds() -> None:
    async with serving() as served:
        await workers(served, "a", queues=["photos", "plain"])
        await served.admin.DeclareTopology(
            Topology(
                exchanges=[
                    Exchange(name="media", type="topic"),
                    Exchange(name="all", type="fanout"),
                ],
                bindings=[
                    Binding(exchange="media", destination="photos", routing_key="photo.#"),
                    Binding(exchange="all", destination="photos"),
                ],
            )
        )
        await served.admin.DeclareQueue(
            DeclareQueueRequest(
                queue="photos", options=QueueOptions(length_max=9, message_ttl_ms=1_500)
            )
        )

        (reply,) = await ask(served, "active_queues")

    photos, plain = json.loads(reply.body)
    assert (photos["exchange"]["name"], photos["exchange"]["type"]) == ("all", "fanout")
    (other,) = photos["bindings"]
    assert (other["exchange"]["name"], other["exchange"]["type"]) == ("media", "topic")
    assert other["routing_key"] == "photo.#"
    assert (photos["max_length"], photos["message_ttl"]) == (9, 1.5)
    assert (plain["exchange"]["name"], plain["routing_key"]) == ("plain", "plain")
    assert (plain["bindings"], plain["max_length"], plain["expires"]) == ([], None, None)


async def test_a_worker_that_changes_its_queues_is_given_what_is_there_before_its_answer_arrives() -> (
    None
):
    async with serving() as served, asyncio.TaskGroup() as group:
        (worker,) = await workers(served, "a", queues=["celery"])
        await served.publish(wire("there", queue="other"))

        asking = group.create_task(ask(served, "add_consumer"))
        question = await asked(worker)
        await worker.call.write(
            WorkRequest(
                consume=Consume(queues=["celery", "other"]),
                control_replies=[ControlReply(id=question.id, body=b"1")],
            )
        )
        await asking
        (status,) = (await served.status()).workers
        (delivery,) = await worker.take()

    assert list(status.queues) == ["celery", "other"]
    assert delivery.id == "there"


async def test_the_queues_of_a_worker_are_those_it_was_told_to_have_before_even_if_nobody_waited() -> (
    None
):
    async with serving() as served, asyncio.TaskGroup() as group:
        (worker,) = await workers(served, "a", queues=["celery", "mail"])

        await ask(served, "cancel_consumer", is_silent=True)
        looking = group.create_task(ask(served, "active_queues"))
        question = await asked(worker)
        reply = ControlReply(id=question.id, body=b"1")
        await worker.call.write(
            WorkRequest(consume=Consume(queues=["celery"]), control_replies=[reply])
        )
        (told,) = await looking

    assert [one["name"] for one in json.loads(told.body)] == ["celery"]


async def test_a_worker_that_does_not_heed_what_it_was_told_holds_up_nobody_for_longer_than_asked() -> (
    None
):
    async with serving() as served:
        await workers(served, "a", queues=["celery"])

        await ask(served, "cancel_consumer", is_silent=True)
        (told,) = await ask(served, "active_queues", timeout_ms=50)

    assert [one["name"] for one in json.loads(told.body)] == ["celery"]


async def test_who_says_hello_hears_of_each_other_worker_what_was_revoked() -> None:
    async with serving() as served:
        await workers(served, "a", "b")
        await served.admin.Revoke(RevokeRequest(ids=["gone"]))

        found = await ask(served, "hello", arguments=b'{"from_node": "a@host", "revoked": {}}')
        odd = await ask(served, "hello", arguments=b"[1]")
        elected = await ask(served, "election", arguments=b'{"id": "1", "topic": "t"}')

    told = {reply.worker: json.loads(reply.body) for reply in found}
    assert told["a@host"] is None
    assert told["b@host"]["revoked"] == ["gone"]
    assert isinstance(told["b@host"]["clock"], int)
    assert len(odd) == 2
    assert elected == []


async def test_a_worker_that_wants_an_impossible_queue_is_told_why_its_stream_ends() -> None:
    async with serving() as served:
        (worker,) = await workers(served, "a")

        await worker.call.write(WorkRequest(consume=Consume(queues=["\x00"])))
        code, details = await worker.end()

        assert code == grpc.StatusCode.INVALID_ARGUMENT
        assert "queue name" in details


async def next_of(call: "Events") -> EventsReply:
    """The next reply of a stream of events."""
    async with asyncio.timeout(WAIT_S):
        reply = await call.read()
    assert isinstance(reply, EventsReply)
    return reply


async def is_wanted(call: "Telling") -> bool:
    """The next word about whether anybody listens."""
    async with asyncio.timeout(WAIT_S):
        reply = await call.read()
    assert isinstance(reply, SendEventsReply)
    return reply.is_wanted


async def test_events_go_from_workers_and_clients_to_those_who_listen() -> None:
    async with serving() as served:
        (worker,) = await workers(served, "a")
        first = await worker.hear()
        listening = served.control.Events(EventsRequest())
        await listening.initial_metadata()
        wanted = await worker.hear()
        while not wanted.HasField("events_wanted"):
            wanted = await worker.hear()
        telling = served.control.SendEvents()
        before = await is_wanted(telling)

        await worker.call.write(WorkRequest(events=[Event(type="task-received", body=b"1")]))
        heard = [await next_of(listening)]
        await telling.write(SendEventsRequest(events=[Event(type="task-sent", body=b"2")]))
        heard.append(await next_of(listening))
        listening.cancel()
        after = await is_wanted(telling)

        assert (first.events_wanted, wanted.events_wanted) == (False, True)
        assert [before, after] == [True, False]
        assert [
            (event.type, event.body, event.clock) for found in heard for event in found.events
        ] == [("task-received", b"1", 1), ("task-sent", b"2", 2)]
        telling.cancel()


async def test_a_client_that_is_done_telling_ends_its_stream() -> None:
    async with serving() as served:
        telling = served.control.SendEvents()
        await telling.read()

        await telling.done_writing()

        assert await telling.code() == grpc.StatusCode.OK


async def test_bytes_that_are_no_events_are_refused_and_nobody_is_harmed() -> None:
    async with serving() as served:
        call = served.raw("/qbroker.v1.Control/SendEvents")
        await call.read()

        await call.write(b"\xff\xff")

        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert await served.is_alive()


async def test_the_broker_tells_of_a_worker_that_vanished() -> None:
    async with serving(grace_ms=0) as served:
        (worker,) = await workers(served, "a")
        listening = served.control.Events(EventsRequest(routing_key="worker.offline"))
        await listening.initial_metadata()

        worker.call.cancel()
        reply = await next_of(listening)

        assert json.loads(reply.events[0].body)["hostname"] == "a@host"


async def test_listeners_and_askers_are_let_go_when_the_broker_stops() -> None:
    async with serving() as served, asyncio.TaskGroup() as group:
        (worker,) = await workers(served, "a")
        listening = served.control.Events(EventsRequest())
        await listening.initial_metadata()
        telling = served.control.SendEvents()
        await telling.read()
        asking = group.create_task(ask(served))
        await asked(worker)

        await served.stop()

        assert await asking == []
        assert await listening.code() == grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in (await listening.details() or "")
        assert await telling.code() == grpc.StatusCode.OK
