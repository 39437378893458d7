"""The Results service: where a task is, and every change, pushed."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import islice
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError

from qbroker_proto.v1 import results_pb2, results_pb2_grpc
from qbroker_server.broker import Broker, Step
from qbroker_server.core import limits, message
from qbroker_server.core.errors import CoreError, CorruptRecord, ResourceFull
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.results import Forget, Keep, Tell
from qbroker_server.pump import Pump
from qbroker_server.rpc import convert, status
from qbroker_server.rpc.streams import Streams

Context: TypeAlias = "grpc.aio.ServicerContext[results_pb2.WatchRequest, results_pb2.WatchReply]"
ForgetContext: TypeAlias = (
    "grpc.aio.ServicerContext[results_pb2.ForgetRequest, results_pb2.ForgetReply]"
)
KeepContext: TypeAlias = "grpc.aio.ServicerContext[results_pb2.KeepRequest, results_pb2.KeepReply]"
TellContext: TypeAlias = "grpc.aio.ServicerContext[results_pb2.TellRequest, results_pb2.TellReply]"

_WANTED_MAX = 10_000
"""States of one stream that wait to be sent; past this the stream is not read, and TCP slows the client."""

_RETRY_AFTER_MS = 1_000
"""When a client that watches too much may try again."""

_READ_MAX = 200
"""States read in one look at the store: a look must be short."""

_REPLY_BYTES_MAX = 4 * 1024 * 1024
"""Of results in one reply; more goes into the next."""


class Results(results_pb2_grpc.ResultsServicer):
    """Knows who watches what, and tells them."""

    def __init__(self, broker: Broker, pump: Pump, streams: Streams) -> None:
        self._broker = broker
        self._pump = pump
        self._streams = streams
        self._watchers: dict[str, set[_Stream]] = {}
        broker.listeners.append(self)

    def stepped(self, step: Step) -> None:
        """Push what changed to those who watch it."""
        watched = self._watchers.keys() & step.changed.keys()
        if not watched:
            return
        for stream in {stream for message_id in watched for stream in self._watchers[message_id]}:
            stream.want(stream.watched & watched)

    async def Watch(  # type: ignore[override]  # the stubs know only servicers that yield; this one writes
        self,
        request_iterator: AsyncIterator[results_pb2.WatchRequest],
        context: Context,
    ) -> None:
        stream = _Stream(self._broker, self._unwatch)
        try:
            with self._streams.open(stream.close):
                async with asyncio.TaskGroup() as group:
                    reader = group.create_task(self._read(request_iterator, stream))
                    await stream.write(context)
                    reader.cancel()
        finally:
            self._unwatch(stream, tuple(stream.watched))
        if stream.failure is not None:
            await context.abort(status.status_of(stream.failure), status.details_of(stream.failure))
        if stream.goodbye:
            await context.abort(grpc.StatusCode.UNAVAILABLE, stream.goodbye)

    async def Forget(
        self, request: results_pb2.ForgetRequest, context: ForgetContext
    ) -> results_pb2.ForgetReply:
        try:
            count = await self._pump.ask(Forget(tuple(request.ids)))
        except CoreError as error:
            await context.abort(status.status_of(error), status.details_of(error))
        return results_pb2.ForgetReply(forgotten_count=count)

    async def Keep(
        self, request: results_pb2.KeepRequest, context: KeepContext
    ) -> results_pb2.KeepReply:
        try:
            await self._pump.ask(
                Keep(request.id, request.result, request.ttl_ms, request.state or "SUCCESS")
            )
        except CoreError as error:
            await context.abort(status.status_of(error), status.details_of(error))
        return results_pb2.KeepReply()

    async def Tell(
        self, request: results_pb2.TellRequest, context: TellContext
    ) -> results_pb2.TellReply:
        command = Tell(request.id, request.attempt, request.state, request.result)
        try:
            is_told = await self._pump.ask(command)
        except CoreError as error:
            await context.abort(status.status_of(error), status.details_of(error))
        return results_pb2.TellReply(is_told=is_told)

    async def _read(
        self, requests: AsyncIterator[results_pb2.WatchRequest], stream: "_Stream"
    ) -> None:
        try:
            async for request in requests:
                watched = (*request.watch, *request.ends)
                if len(stream.watched) + len(watched) > limits.WATCHED_MAX:
                    stream.failure = ResourceFull(
                        f"one stream watches up to {limits.WATCHED_MAX} messages; unwatch some, or open another",
                        retry_after_ms=_RETRY_AFTER_MS,
                    )
                    return
                # Subscribed before the state is read: a change in between is told twice, never missed.
                for message_id in watched:
                    stream.watched.add(message_id)
                    self._watchers.setdefault(message_id, set()).add(stream)
                self._unwatch(stream, request.unwatch)
                stream.want(request.watch)
                stream.want(request.read)
                stream.want_ends(request.ends)
                await stream.has_room()
        except DecodeError as error:
            stream.failure = convert.unreadable(error)
        finally:
            stream.end()

    def _unwatch(self, stream: "_Stream", ids: Iterable[str]) -> None:
        for message_id in ids:
            stream.watched.discard(message_id)
            watchers = self._watchers.get(message_id)
            if watchers is not None:
                watchers.discard(stream)
                if not watchers:
                    del self._watchers[message_id]


class _Stream:
    """One watch stream. It remembers which states to send, and reads them when it can send them.

    So a slow reader costs an id a change at most, never a result, and is told the newest state.
    """

    def __init__(self, broker: Broker, unwatch: Callable[["_Stream", Iterable[str]], None]) -> None:
        self.watched: set[str] = set()
        self.goodbye = ""
        self.failure: CoreError | None = None
        self._broker = broker
        self._unwatch = unwatch
        # With each id, whether it is wanted only if it has ended.
        self._wanted: dict[str, bool] = {}
        self._wake = asyncio.Event()
        self._sent = asyncio.Event()
        self._is_over = False

    def close(self, reason: str) -> None:
        """Send what is wanted, and end."""
        self.goodbye = reason
        self.end()

    def end(self) -> None:
        """Nothing more will be wanted."""
        self._is_over = True
        self._wake.set()

    def want(self, ids: Iterable[str]) -> None:
        """Send the state of these as it is when they are sent."""
        self._wanted.update(dict.fromkeys(ids, False))
        self._wake.set()

    def want_ends(self, ids: Iterable[str]) -> None:
        """Send the state of those of these that have ended when they are sent."""
        for message_id in ids:
            self._wanted.setdefault(message_id, True)
        self._wake.set()

    async def has_room(self) -> None:
        """Wait until little enough waits to be sent."""
        while len(self._wanted) > _WANTED_MAX:
            self._sent.clear()
            await self._sent.wait()

    async def write(self, context: Context) -> None:
        """Send until the stream is over."""
        while True:
            while self._wanted:
                reply = self._broker.read(self._look)
                self._unwatch(self, [state.id for state in reply.states if state.is_final])
                await context.write(reply)
                self._sent.set()
            if self._is_over:
                return
            await self._wake.wait()
            self._wake.clear()

    def _look(self, txn: ReadTxn) -> results_pb2.WatchReply:
        reply = results_pb2.WatchReply()
        size = 0
        for message_id in tuple(islice(self._wanted, _READ_MAX)):
            if size >= _REPLY_BYTES_MAX:
                break
            is_end_wanted = self._wanted.pop(message_id)
            if is_end_wanted and not message.has_ended(txn, message_id):
                continue
            try:
                state = convert.task_state(txn, message_id, message.peek(txn, message_id))
            except CorruptRecord as error:
                state = convert.damaged_state(message_id, error)
            size += len(state.result)
            reply.states.append(state)
        return reply
