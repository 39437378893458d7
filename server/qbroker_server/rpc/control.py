"""The Control service: questions to workers with gathered answers, and events.

What the store knows is answered from there: `reserved`, `scheduled`, `revoked` and `active_queues` need no worker to
be awake. Everything else goes to the workers that are connected, and the call ends when they have answered.
"""

import asyncio
import contextlib
import fnmatch
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError

from qbroker_proto.v1 import control_pb2, control_pb2_grpc
from qbroker_server.broker import Broker
from qbroker_server.core import held, queue
from qbroker_server.core.dispatch import Session
from qbroker_server.core.errors import CoreError, Invalid
from qbroker_server.core.records import QueueOptions
from qbroker_server.core.routes import BUILT_IN, Binding, Exchange, Table
from qbroker_server.rpc import convert, status
from qbroker_server.rpc.calls import Asked, Calls
from qbroker_server.rpc.hub import Hub
from qbroker_server.rpc.streams import Streams
from qbroker_server.rpc.work import Worker

Context: TypeAlias = (
    "grpc.aio.ServicerContext[control_pb2.BroadcastRequest, control_pb2.BroadcastReply]"
)
EventsContext: TypeAlias = (
    "grpc.aio.ServicerContext[control_pb2.EventsRequest, control_pb2.EventsReply]"
)
SendContext: TypeAlias = (
    "grpc.aio.ServicerContext[control_pb2.SendEventsRequest, control_pb2.SendEventsReply]"
)

Request: TypeAlias = control_pb2.BroadcastRequest
Answer: TypeAlias = Callable[
    ["Control", Sequence[Session], Request], Awaitable[list[control_pb2.BroadcastReply]]
]

_CHANGING = frozenset({"add_consumer", "cancel_consumer"})
"""Commands that change from which queues a worker takes."""

_TIMEOUT_MS_MAX = 600_000
_COMMAND_BYTES_MAX = 255
_REVOKED_LOOKS_MAX = 50


class Control(control_pb2_grpc.ControlServicer):
    """Knows who is connected, so a question is over when they have answered."""

    def __init__(
        self, broker: Broker, worker: Worker, calls: Calls, hub: Hub, streams: Streams
    ) -> None:
        self._broker = broker
        self._worker = worker
        self._calls = calls
        self._hub = hub
        self._streams = streams

    # -- questions ---------------------------------------------------------------------------------

    async def Broadcast(
        self, request: control_pb2.BroadcastRequest, context: Context
    ) -> AsyncIterator[control_pb2.BroadcastReply]:
        try:
            _check(request)
            sessions = self._chosen(request)
        except CoreError as error:
            await context.abort(status.status_of(error), status.details_of(error))
        limit = request.limit or len(sessions)
        own = _OWN.get(request.command)
        deadline = asyncio.get_running_loop().time() + request.timeout_ms / 1000
        if own is not None:
            if own is Control._active_queues:
                # What was said before, and has not been heard yet, counts.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(deadline):
                        await self._calls.settled(_CHANGING, {one.id for one in sessions})
            for reply in (await own(self, sessions, request))[:limit]:
                yield reply
            return
        number, call = self._calls.open(
            [Asked(session.id, session.name) for session in sessions],
            lambda session, number: self._worker.ask(
                session,
                control_pb2.ControlRequest(
                    id=number,
                    command=request.command,
                    arguments=request.arguments,
                    words=request.words,
                ),
            ),
            request.command,
            is_heard=not request.is_silent,
        )
        if request.is_silent:
            return
        try:
            with self._streams.open(lambda _: self._calls.end(number)):
                for _ in range(limit):
                    async with asyncio.timeout_at(deadline):
                        answer = await call.next()
                    if answer is None:
                        return
                    yield control_pb2.BroadcastReply(worker=answer[0], body=answer[1])
        except TimeoutError:
            for name in call.waiting.values():
                yield control_pb2.BroadcastReply(worker=name, is_missing=True)
        finally:
            self._calls.close(number)

    def _chosen(self, request: control_pb2.BroadcastRequest) -> list[Session]:
        """The connected workers that are meant, by name."""
        names = frozenset(request.destination)
        fits = _matcher(request.pattern, request.matcher)
        found = [
            session
            for session in self._broker.dispatcher.sessions.values()
            if session.is_connected
            and (not names or session.name in names)
            and (fits is None or fits(session.name))
        ]
        return sorted(found, key=lambda session: (session.name, session.id))

    async def _reserved(
        self, sessions: Sequence[Session], _: Request
    ) -> list[control_pb2.BroadcastReply]:
        replies: list[control_pb2.BroadcastReply] = []
        with self._broker.engine.read() as txn:
            for session in sessions:
                reply = control_pb2.BroadcastReply(worker=session.name, has_messages=True)
                for one in held.reserved(txn, session.id):
                    _add(reply, one)
                replies.append(reply)
        return replies

    async def _scheduled(
        self, sessions: Sequence[Session], _: Request
    ) -> list[control_pb2.BroadcastReply]:
        """Each message once: with the first worker, by name, that takes from its queue and knows its task."""
        replies = {
            session.id: control_pb2.BroadcastReply(worker=session.name, has_messages=True)
            for session in sessions
        }
        with self._broker.engine.read() as txn:
            for one in held.scheduled(txn):
                for session in sessions:
                    if one.record.queue in session.queues and one.record.task in session.tasks:
                        _add(replies[session.id], one)
                        break
        return list(replies.values())

    async def _revoked(
        self, sessions: Sequence[Session], _: Request
    ) -> list[control_pb2.BroadcastReply]:
        return _same(sessions, await self._revoked_ids())

    async def _revoked_ids(self) -> list[str]:
        ids: list[str] = []
        after = b""
        for _ in range(_REVOKED_LOOKS_MAX):
            with self._broker.engine.read() as txn:
                found, after = held.revoked(txn, after)
            ids += found
            if not after:
                break
            # Others have their turn between two looks.
            await asyncio.sleep(0)
        return ids

    async def _active_queues(
        self, sessions: Sequence[Session], _: Request
    ) -> list[control_pb2.BroadcastReply]:
        # A table of its own: the broker's belongs to the thread that writes.
        table = Table()
        infos: dict[str, dict[str, object]] = {}
        with self._broker.engine.read() as txn:
            exchanges = {**BUILT_IN, **table.exchanges(txn)}
            bindings = [one for one in table.bindings(txn).values() if not one.is_to_exchange]
            for name in dict.fromkeys(name for session in sessions for name in session.queues):
                ours = sorted(
                    (one for one in bindings if one.destination == name),
                    key=lambda one: (one.exchange, one.routing_key),
                )
                infos[name] = _queue_info(name, queue.counts(txn, name).options, ours, exchanges)
        return [
            control_pb2.BroadcastReply(
                worker=session.name, body=_json([infos[name] for name in session.queues])
            )
            for session in sessions
        ]

    async def _clock(
        self, sessions: Sequence[Session], _: Request
    ) -> list[control_pb2.BroadcastReply]:
        return _same(sessions, {"clock": self._hub.count})

    async def _hello(
        self, sessions: Sequence[Session], request: Request
    ) -> list[control_pb2.BroadcastReply]:
        """What a worker that starts would ask of the others, if it had to; the one that asks has nothing to tell itself."""
        try:
            asks = dict(json.loads(request.arguments or b"{}")).get("from_node")
        except (TypeError, ValueError):
            asks = None
        told = {"revoked": await self._revoked_ids(), "clock": self._hub.count}
        others = [session for session in sessions if session.name != asks]
        itself = [session for session in sessions if session.name == asks]
        return _same(others, told) + _same(itself, None)

    async def _nobody(self, _: Sequence[Session], __: Request) -> list[control_pb2.BroadcastReply]:
        return []

    # -- events ------------------------------------------------------------------------------------

    async def Events(
        self, request: control_pb2.EventsRequest, context: EventsContext
    ) -> AsyncIterator[control_pb2.EventsReply]:
        with self._hub.listen(request.routing_key) as listener, self._streams.open(listener.close):
            # Who sees the first metadata knows that nothing that happens from now on is missed.
            await context.send_initial_metadata(())
            while (reply := await listener.next()) is not None:
                yield reply
            code = grpc.StatusCode.UNAVAILABLE
            if listener.is_too_slow:
                code = grpc.StatusCode.RESOURCE_EXHAUSTED
            await context.abort(code, listener.reason)

    async def SendEvents(  # type: ignore[override]  # the stubs know only servicers that yield; this one writes
        self,
        request_iterator: AsyncIterator[control_pb2.SendEventsRequest],
        context: SendContext,
    ) -> None:
        changed = asyncio.Event()
        changed.set()
        is_over = False
        fault: CoreError | None = None

        def follow(_: object) -> None:
            changed.set()

        def close(_: object) -> None:
            nonlocal is_over
            is_over = True
            changed.set()

        async def hear() -> None:
            nonlocal fault
            try:
                async for request in request_iterator:
                    self._hub.publish(request.events)
            except DecodeError as error:
                fault = convert.unreadable(error)
            finally:
                close("")

        async with asyncio.TaskGroup() as group:
            hearing = group.create_task(hear())
            with self._hub.follow(follow), self._streams.open(close):
                while not is_over:
                    changed.clear()
                    # Not by `yield`: whoever closes a generator amid a group of tasks gets the group's complaint.
                    await context.write(control_pb2.SendEventsReply(is_wanted=self._hub.is_wanted))
                    await changed.wait()
            hearing.cancel()
        if fault is not None:
            await context.abort(status.status_of(fault), status.details_of(fault))


_OWN: dict[str, Answer] = {
    "active_queues": Control._active_queues,  # noqa: SLF001 - a table of this class's methods
    "clock": Control._clock,  # noqa: SLF001 - the same
    "dump_reserved": Control._reserved,  # noqa: SLF001 - the same
    "dump_revoked": Control._revoked,  # noqa: SLF001 - the same
    "dump_schedule": Control._scheduled,  # noqa: SLF001 - the same
    # Workers need not agree on anything, so they are not even asked.
    "election": Control._nobody,  # noqa: SLF001 - the same
    "hello": Control._hello,  # noqa: SLF001 - the same
    "reserved": Control._reserved,  # noqa: SLF001 - the same
    "revoked": Control._revoked,  # noqa: SLF001 - the same
    "scheduled": Control._scheduled,  # noqa: SLF001 - the same
}
"""What the broker answers itself, by the commands' names."""


def _check(request: control_pb2.BroadcastRequest) -> None:
    if not 0 < len(request.command.encode()) <= _COMMAND_BYTES_MAX:
        raise Invalid(
            f"the command {request.command[:60]!r} must have 1 to {_COMMAND_BYTES_MAX} bytes"
        )
    if not request.is_silent and not 0 < request.timeout_ms <= _TIMEOUT_MS_MAX:
        raise Invalid(f"timeout {request.timeout_ms!r} ms is not 1 to {_TIMEOUT_MS_MAX:,}")


def _matcher(pattern: str, kind: str) -> Callable[[str], object] | None:
    if not pattern:
        return None
    if kind in ("", "glob"):
        return lambda name: fnmatch.fnmatch(name, pattern)
    if kind not in ("pcre", "regex"):
        raise Invalid(f"the matcher {kind!r} is neither glob nor pcre")
    try:
        return re.compile(pattern).match
    except re.error as error:
        raise Invalid(
            f"the pattern {pattern!r} is not a valid regular expression: {error}"
        ) from error


def _add(reply: control_pb2.BroadcastReply, one: held.Held) -> None:
    reply.messages.add(
        message=one.payload,
        is_redelivered=held.is_redelivered(one.record),
        eta_ms=one.record.eta_ms,
    )


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _same(sessions: Sequence[Session], value: object) -> list[control_pb2.BroadcastReply]:
    body = _json(value)
    return [control_pb2.BroadcastReply(worker=session.name, body=body) for session in sessions]


def _queue_info(
    name: str,
    options: QueueOptions,
    bindings: Sequence[Binding],
    exchanges: Mapping[str, Exchange],
) -> dict[str, object]:
    """A queue in the shape of kombu's `Queue.as_dict`; its exchange is that of its first binding."""
    first = bindings[0] if bindings else Binding(name, name, name)
    ttl_ms, expires_ms = options.message_ttl_ms, options.expires_ms
    return {
        "name": name,
        "exchange": _exchange_info(first.exchange, exchanges),
        "routing_key": first.routing_key,
        "queue_arguments": None,
        "binding_arguments": dict(first.arguments) or None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [
            {
                "exchange": _exchange_info(one.exchange, exchanges),
                "routing_key": one.routing_key,
                "arguments": dict(one.arguments) or None,
            }
            for one in bindings[1:]
        ],
        "no_declare": None,
        "expires": expires_ms / 1000 if expires_ms else None,
        "message_ttl": ttl_ms / 1000 if ttl_ms else None,
        "max_length": options.length_max or None,
        "max_length_bytes": options.bytes_max or None,
        "max_priority": None,
    }


def _exchange_info(name: str, exchanges: Mapping[str, Exchange]) -> dict[str, object]:
    exchange = exchanges.get(name) or Exchange(name)
    return {
        "name": name,
        "type": str(exchange.type),
        "arguments": None,
        "durable": True,
        "passive": False,
        "auto_delete": exchange.is_auto_delete,
        "delivery_mode": None,
        "no_declare": False,
    }
