"""The Worker service: deliveries out, settles in, and what happens when a stream breaks."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Sequence
from typing import TypeAlias

import grpc
from google.protobuf.message import DecodeError

from qbroker_proto.v1 import control_pb2, worker_pb2, worker_pb2_grpc
from qbroker_server.broker import Broker, Step
from qbroker_server.core import limits
from qbroker_server.core.dispatch import Delivery, Dispatcher
from qbroker_server.core.effects import Cancel
from qbroker_server.core.errors import CoreError, Invalid, NameTaken
from qbroker_server.core.lease import Consume, LeaseId, Register, Report, Reported, ReturnLeases
from qbroker_server.pump import Pump
from qbroker_server.rpc import convert, status
from qbroker_server.rpc.calls import Calls
from qbroker_server.rpc.hub import Hub
from qbroker_server.rpc.streams import Streams

logger = logging.getLogger(__name__)

Context: TypeAlias = "grpc.aio.ServicerContext[worker_pb2.WorkRequest, worker_pb2.WorkReply]"

_REPLY_BYTES_MAX = 4 * 1024 * 1024
"""Of message payload in one reply; more goes into the next."""

_UNAPPLIED_MAX = 64
"""Requests of one stream that wait for their commit; past this the stream is not read."""

_REGISTER_S = 10.0
"""How long a stream may stay without a session."""


class Worker(worker_pb2_grpc.WorkerServicer):
    """Turns work streams into sessions: who is there, and since when somebody is not."""

    def __init__(
        self,
        broker: Broker,
        pump: Pump,
        streams: Streams,
        calls: Calls,
        hub: Hub,
        *,
        version: str,
        grace_ms: int,
        message_bytes_max: int,
    ) -> None:
        self._dispatcher = broker.dispatcher
        self._pump = pump
        self._streams = streams
        self._calls = calls
        self._hub = hub
        self._version = version
        self._grace_ms = grace_ms
        self._message_bytes_max = message_bytes_max
        self._loop = asyncio.get_running_loop()
        self._by_session: dict[str, _Stream] = {}
        self._graces: dict[str, asyncio.TimerHandle] = {}
        self.registrations: dict[str, worker_pb2.Register] = {}
        """What each session said of itself, until its leases have returned."""
        broker.listeners.append(self)

    def stepped(self, step: Step) -> None:
        """Put what was leased on its way."""
        for session, deliveries in step.deliveries.items():
            stream = self._by_session.get(session)
            # A session whose stream broke during the commit keeps its leases until it resumes or its grace ends.
            if stream is not None:
                stream.deliver(deliveries)
        for cancel in step.cancels:
            stream = self._by_session.get(cancel.session)
            # One that is not connected learns of it when its lease ends: it is not run again.
            if stream is not None:
                stream.cancel(cancel)

    def ask(self, session: str, request: control_pb2.ControlRequest) -> bool:
        """Put a question on its way to a worker; whether it is connected."""
        stream = self._by_session.get(session)
        if stream is None:
            return False
        stream.ask(request)
        return True

    def await_return(self, session: str) -> None:
        """Give a session whose stream is gone its grace; then its leases return."""
        if timer := self._graces.pop(session, None):
            timer.cancel()
        self._graces[session] = self._loop.call_later(
            self._grace_ms / 1000,
            self._return_leases,
            session,
            "The worker did not come back.",
        )

    def stop(self) -> None:
        """Let no grace run out any more."""
        for timer in self._graces.values():
            timer.cancel()

    async def Work(  # type: ignore[override]  # the stubs know only servicers that yield; this one writes
        self, request_iterator: AsyncIterator[worker_pb2.WorkRequest], context: Context
    ) -> None:
        try:
            first = await self._first(request_iterator)
        except DecodeError as error:
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT, status.details_of(convert.unreadable(error))
            )
        except TimeoutError:
            await context.abort(
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"a work stream must register within {_REGISTER_S:g} seconds, and before the broker stops",
            )
        if first is None:
            return
        if not first.HasField("register"):
            await context.abort(
                grpc.StatusCode.INVALID_ARGUMENT,
                "the first request of a work stream must register",
            )
        stream = _Stream(
            self._pump,
            self._dispatcher,
            first.register.session_id,
            first.register.name,
            self._message_bytes_max,
            self._calls,
            self._hub,
        )
        try:
            with self._streams.open(stream.close), self._hub.follow(stream.want_events):
                await self._register(first, stream)
                await stream.run(request_iterator, context)
        except CoreError as error:
            await context.abort(status.status_of(error), status.details_of(error))
        finally:
            self._close(stream)

    async def _first(
        self, requests: AsyncIterator[worker_pb2.WorkRequest]
    ) -> worker_pb2.WorkRequest | None:
        async with asyncio.timeout(_REGISTER_S) as deadline:
            with self._streams.open(lambda _: deadline.reschedule(self._loop.time())):
                return await anext(aiter(requests), None)

    async def _register(self, first: worker_pb2.WorkRequest, stream: "_Stream") -> None:
        register = first.register
        command = Register(
            register.session_id,
            register.name,
            tuple(dict.fromkeys(register.queues)),
            frozenset(register.tasks),
            register.prefetch_count,
            tuple([convert.lease_id(lease) for lease in register.held]),
        )
        # A refusal must not cost the session that is there.
        command.check()
        if register.HasField("topology"):
            await self._pump.ask(convert.declaration(register.topology))
        session = stream.session
        self._check_name(register)
        before = self._by_session.get(session)
        if before is not None:
            before.close("another stream has taken over this session")
            self._calls.gone(session)
        if timer := self._graces.pop(session, None):
            timer.cancel()
        self._by_session[session] = stream
        self.registrations[session] = register
        opened: asyncio.Future[list[LeaseId]] = self._loop.create_future()

        def reply(value: list[LeaseId] | CoreError) -> None:
            if opened.cancelled():
                # The stream broke before its session opened: nobody has disconnected that yet.
                if session not in self._by_session:
                    self._dispatcher.disconnect(session)
                    self.await_return(session)
                return
            # What earlier steps leased to the session has just returned to its queue.
            stream.deliveries.clear()
            if isinstance(value, CoreError):
                opened.set_exception(value)
            else:
                opened.set_result(value)

        self._pump.submit(command, reply)
        lost = await opened
        logger.info("%s registered for %s", register.name, ", ".join(register.queues))
        stream.registered(
            worker_pb2.Registered(
                broker_version=self._version,
                grace_ms=self._grace_ms,
                result_bytes_max=self._message_bytes_max,
            ),
            lost,
        )
        stream.report(first)

    def _check_name(self, register: worker_pb2.Register) -> None:
        """Raise NameTaken when another session that is connected has the name: who asks by name asks one."""
        if not register.name:
            return
        for session in self._by_session:
            other = self.registrations[session]
            if other.name == register.name and session != register.session_id:
                raise NameTaken(register.name, other.hostname, other.pid)

    def _close(self, stream: "_Stream") -> None:
        session = stream.session
        if self._by_session.get(session) is not stream:
            return
        del self._by_session[session]
        self._calls.gone(session)
        self._dispatcher.disconnect(session)
        if stream.has_left:
            self._return_leases(session, "The worker left.", has_left=True)
        else:
            self.await_return(session)

    def _return_leases(self, session: str, detail: str, *, has_left: bool = False) -> None:
        self._graces.pop(session, None)
        command = ReturnLeases(session, detail)

        def again(answer: object) -> None:
            if session in self._by_session:
                # It came back meanwhile, and what it holds now is its own.
                return
            if answer is True:
                self._pump.submit(command, again)
            elif (register := self.registrations.pop(session, None)) and not has_left:
                self._hub.lost(register.name, register.pid)

        self._pump.submit(command, again)


class _Stream:
    """One work stream: a reader that submits reports, a writer that sends what has gathered."""

    def __init__(
        self,
        pump: Pump,
        dispatcher: Dispatcher,
        session: str,
        worker: str,
        message_bytes_max: int,
        calls: Calls,
        hub: Hub,
    ) -> None:
        self.session = session
        self._worker = worker
        self._calls = calls
        self._hub = hub
        self._controls: list[control_pb2.ControlRequest] = []
        self._wants_events: bool | None = None
        self.has_left = False
        self._pump = pump
        self._dispatcher = dispatcher
        self._message_bytes_max = message_bytes_max
        self._wake = asyncio.Event()
        self._has_room = asyncio.Event()
        self._unapplied_count = 0
        self.deliveries: deque[Delivery] = deque()
        """What is to be sent."""
        self._lost: list[LeaseId] = []
        self._cancels: list[Cancel] = []
        self._applied_seq = 0
        self._registered: worker_pb2.Registered | None = None
        self._goodbye = ""
        self._failure: CoreError | None = None
        self._is_over = False
        self._reader: asyncio.Task[None] | None = None

    def close(self, reason: str) -> None:
        """Read no more, send what is on its way, say goodbye, and end."""
        self._goodbye = reason
        self._is_over = True
        if self._reader is not None:
            self._reader.cancel()
        self._wake.set()

    def registered(self, registered: worker_pb2.Registered, lost: Sequence[LeaseId]) -> None:
        """The session is open; `lost` are leases it named that are not its own any more."""
        self._registered = registered
        self._wants_events = self._hub.is_wanted
        self._lost += lost
        self._wake.set()

    def deliver(self, deliveries: Sequence[Delivery]) -> None:
        """Send these with the next reply."""
        self.deliveries += deliveries
        self._wake.set()

    def cancel(self, cancel: Cancel) -> None:
        """Tell the worker with the next reply that a lease was revoked."""
        self._cancels.append(cancel)
        self._wake.set()

    def ask(self, request: control_pb2.ControlRequest) -> None:
        """Ask the worker with the next reply."""
        self._controls.append(request)
        self._wake.set()

    def want_events(self, is_wanted: bool) -> None:  # noqa: FBT001 - a plain callback
        """Tell the worker with the next reply whether anybody listens."""
        self._wants_events = is_wanted
        self._wake.set()

    def _hear_aside(self, request: worker_pb2.WorkRequest) -> None:
        """Take what has no number: answers, events, and other queues."""
        if request.events:
            self._hub.publish(request.events)

        def answer(value: CoreError | None) -> None:
            if isinstance(value, CoreError):
                self._failure = value
                self._wake.set()
            for reply in request.control_replies:
                self._calls.answered(self.session, reply)

        if request.HasField("consume"):
            # Who asked for it hears of it when it is so.
            names = tuple(dict.fromkeys(request.consume.queues))
            tasks = frozenset(request.consume.tasks) or None
            self._pump.submit(Consume(self.session, names, tasks), answer)
        else:
            answer(None)

    def report(self, request: worker_pb2.WorkRequest) -> None:
        """Submit what the worker says; Invalid when it cannot be read."""
        items = len(request.starts) + len(request.settles) + len(request.releases)
        if items > limits.REPORT_ITEMS_MAX:
            raise Invalid(
                f"a request of {items} starts, settles and releases is too large; "
                f"send up to {limits.REPORT_ITEMS_MAX} at once"
            )
        seq, size_max = request.seq, self._message_bytes_max
        has_prefetch = request.HasField("prefetch_count")
        command = Report(
            self.session,
            [convert.start(one, self._worker) for one in request.starts],
            [convert.settle(settle, size_max) for settle in request.settles],
            [convert.lease_id(lease) for lease in request.releases],
            request.prefetch_count if has_prefetch else None,
            request.drain or request.leave,
            frozenset(request.unwanted.tasks) if request.HasField("unwanted") else None,
        )
        self.has_left = self.has_left or request.leave

        def applied(value: Reported | CoreError) -> None:
            self._unapplied_count -= 1
            if isinstance(value, CoreError):
                self._failure = value
            else:
                self._applied_seq = seq
                self._lost += value.lost
                for lease, error in value.refusals:
                    logger.error("A settle of %s was refused: %s", lease.id, error)
            self._has_room.set()
            self._wake.set()

        self._unapplied_count += 1
        self._pump.submit(command, applied)

    async def run(self, requests: AsyncIterator[worker_pb2.WorkRequest], context: Context) -> None:
        """Carry until either side ends; a CoreError tells the worker why the broker did."""
        async with asyncio.TaskGroup() as group:
            self._reader = group.create_task(self._read(requests))
            if self._goodbye:
                self._reader.cancel()
            await self._write(context)
            self._reader.cancel()
        if self._failure is not None:
            raise self._failure

    async def _read(self, requests: AsyncIterator[worker_pb2.WorkRequest]) -> None:
        try:
            async for request in requests:
                if _is_aside(request):
                    self._hear_aside(request)
                    continue
                self.report(request)
                while self._unapplied_count >= _UNAPPLIED_MAX:
                    self._has_room.clear()
                    await self._has_room.wait()
        except DecodeError as error:
            self._failure = convert.unreadable(error)
        except Invalid as error:
            self._failure = error
        finally:
            self._is_over = True
            self._wake.set()

    async def _write(self, context: Context) -> None:
        sent_seq = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (
                self.deliveries
                or self._lost
                or self._cancels
                or self._registered
                or self._controls
                or self._wants_events is not None
                or self._applied_seq > sent_seq
            ):
                reply = worker_pb2.WorkReply(applied_seq=self._applied_seq)
                sent_seq = self._applied_seq
                if self._registered is not None:
                    reply.registered.CopyFrom(self._registered)
                    self._registered = None
                if self._wants_events is not None:
                    reply.events_wanted = self._wants_events
                    self._wants_events = None
                reply.controls.extend(self._controls)
                self._controls.clear()
                for lease in self._lost:
                    reply.lost.add(id=lease.id, attempt=lease.attempt)
                self._lost.clear()
                for cancel in self._cancels:
                    reply.cancels.add(
                        id=cancel.id,
                        attempt=cancel.attempt,
                        terminate=cancel.is_terminated,
                        signal=cancel.signal,
                    )
                self._cancels.clear()
                size = 0
                large: Delivery | None = None
                while self.deliveries and size < _REPLY_BYTES_MAX:
                    delivery = self.deliveries.popleft()
                    size += delivery.size
                    if delivery.inputs and delivery.size > convert.PART_BYTES:
                        large = delivery
                        break
                    convert.add_delivery(reply, delivery)
                await context.write(reply)
                if large is not None:
                    for part in convert.split(large):
                        await context.write(part)
                if self._dispatcher.sent(self.session, size):
                    self._pump.nudge()
            if self._failure is not None:
                return
            if self._is_over and not self._unapplied_count:
                if self._goodbye:
                    await context.write(worker_pb2.WorkReply(goodbye=self._goodbye))
                return


def _is_aside(request: worker_pb2.WorkRequest) -> bool:
    return not request.seq and bool(
        request.events or request.control_replies or request.HasField("consume")
    )
