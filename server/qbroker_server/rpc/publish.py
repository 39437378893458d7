"""The Producer service: messages in, confirms out, each after its commit."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from functools import partial
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError

from qbroker_proto.v1 import producer_pb2, producer_pb2_grpc
from qbroker_server.core import limits
from qbroker_server.core.errors import CoreError, Damaged, Invalid
from qbroker_server.core.publish import New, Publish, Published, cut
from qbroker_server.pump import Pump
from qbroker_server.rpc import convert, status
from qbroker_server.rpc.streams import Streams

Context: TypeAlias = (
    "grpc.aio.ServicerContext[producer_pb2.PublishRequest, producer_pb2.PublishReply]"
)

_UNCONFIRMED_MAX = 64
"""Requests of one stream that wait for their commit; past this the stream is not read, and TCP slows the client."""


class Producer(producer_pb2_grpc.ProducerServicer):
    """Turns publish streams into commands."""

    def __init__(self, pump: Pump, streams: Streams, *, message_bytes_max: int) -> None:
        self._pump = pump
        self._streams = streams
        self._message_bytes_max = message_bytes_max

    async def Publish(  # type: ignore[override]  # the stubs know only servicers that yield; this one writes
        self,
        request_iterator: AsyncIterator[producer_pb2.PublishRequest],
        context: Context,
    ) -> None:
        stream = _Stream(self._pump, self._message_bytes_max)
        with self._streams.open(stream.close):
            await stream.run(request_iterator, context)
        if stream.goodbye:
            await context.abort(grpc.StatusCode.UNAVAILABLE, stream.goodbye)


class _Stream:
    """One publish stream: a reader that submits, a writer that confirms in order."""

    def __init__(self, pump: Pump, message_bytes_max: int) -> None:
        self.goodbye = ""
        self._pump = pump
        self._message_bytes_max = message_bytes_max
        self._replies: deque[producer_pb2.PublishReply] = deque()
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._unconfirmed_count = 0
        self._is_over = False
        self._failure: CoreError | None = None
        self._reader: asyncio.Task[None] | None = None

    def close(self, reason: str) -> None:
        """Read no more, confirm what was read, and end."""
        self.goodbye = reason
        if self._reader is not None:
            self._reader.cancel()

    async def run(
        self, requests: AsyncIterator[producer_pb2.PublishRequest], context: Context
    ) -> None:
        if self.goodbye:
            return
        async with asyncio.TaskGroup() as group:
            self._reader = group.create_task(self._read(requests))
            await self._write(context)
            self._reader.cancel()
        if self._failure is not None:
            await context.abort(status.status_of(self._failure), status.details_of(self._failure))

    async def _read(self, requests: AsyncIterator[producer_pb2.PublishRequest]) -> None:
        try:
            async for request in requests:
                if len(request.messages) > limits.PUBLISH_ITEMS_MAX:
                    self._failure = Invalid(
                        f"a request of {len(request.messages)} messages is too large; "
                        f"send up to {limits.PUBLISH_ITEMS_MAX} at once"
                    )
                    return
                self._submit(request)
                if self._unconfirmed_count >= _UNCONFIRMED_MAX:
                    self._has_room.clear()
                    await self._has_room.wait()
        except DecodeError as error:
            self._failure = convert.unreadable(error)
        finally:
            self._is_over = True
            self._wake.set()

    def _submit(self, request: producer_pb2.PublishRequest) -> None:
        messages: list[New] = []
        places: list[int] = []
        refusals: list[producer_pb2.Refusal] = []
        for index, raw in enumerate(request.messages):
            try:
                messages.append(convert.new(raw, self._message_bytes_max))
                places.append(index)
            except (Damaged, Invalid) as error:
                refusals.append(status.refusal_of(index, error))
        reply = producer_pb2.PublishReply(seq=request.seq, refusals=refusals)
        parts = cut(messages)
        open_count = len(parts)

        def confirm(value: Published | CoreError, first: int) -> None:
            nonlocal open_count
            open_count -= 1
            if isinstance(value, CoreError):
                self._failure = value
                self._is_over = True
            else:
                for place, error in value.refusals:
                    reply.refusals.append(status.refusal_of(places[first + place], error))
                reply.duplicates.extend([places[first + place] for place in value.duplicates])
                for place, holder in value.existing:
                    reply.existing.add(index=places[first + place], id=holder)
            if not open_count:
                self._unconfirmed_count -= 1
                if self._failure is None:
                    self._replies.append(reply)
            self._has_room.set()
            self._wake.set()

        self._unconfirmed_count += 1
        first = 0
        for part in parts:
            self._pump.submit(Publish(part), partial(confirm, first=first))
            first += len(part)

    async def _write(self, context: Context) -> None:
        while True:
            while self._replies:
                await context.write(self._replies.popleft())
            if self._failure is not None or (self._is_over and not self._unconfirmed_count):
                return
            await self._wake.wait()
            self._wake.clear()
