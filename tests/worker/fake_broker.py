"""A broker in a few lines, behind a real socket: leases, attempts, requests applied once and in order."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TypeAlias

import grpc

from qbroker_proto.v1.message_pb2 import ACK_POLICY_EARLY, ACK_POLICY_LATE
from qbroker_proto.v1.worker_pb2 import (
    Cancel,
    Delivery as WireDelivery,
    Lease as WireLease,
    Register,
    Registered,
    Settle as WireSettle,
    WorkReply,
    WorkRequest,
)
from qbroker_proto.v1.worker_pb2_grpc import WorkerServicer, add_WorkerServicer_to_server
from tests.worker.toys import PATIENCE_S

Context: TypeAlias = "grpc.aio.ServicerContext[WorkRequest, WorkReply]"


class FakeBroker(WorkerServicer):
    """Knows one worker. What is settled is in `settled`, with its outcome; what happened, in fields."""

    def __init__(self) -> None:
        self.queued: list[WireDelivery] = []
        self.leased: dict[str, WireDelivery] = {}
        self.settled: dict[str, tuple[int, bytes]] = {}
        self.settles: list[WireSettle] = []
        self.revoked: list[Cancel] = []
        """What the next reply says is revoked."""
        self.released: list[str] = []
        self.asides: list[WorkRequest] = []
        """What was said beside the session."""
        self.remarks: list[WorkReply] = []
        """What is said beside it when a session has opened."""
        self.started: list[str] = []
        self.said_started: set[str] = set()
        """The same, applied or not."""
        self.registers: list[Register] = []
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.applies = True
        self.unwanted: list[str] = []
        self.leased_max = 0
        self.has_drained = False
        self.has_left = False
        self._window = 0
        self._applied_seq = 0
        self._links: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._news = asyncio.Event()

    def publish(
        self,
        id_: str,
        message: bytes = b"",
        task: str = "echo",
        *,
        is_late: bool = False,
        lost_count: int = 0,
    ) -> None:
        """Have a delivery ready, which so many workers have been lost with."""
        policy = ACK_POLICY_LATE if is_late else ACK_POLICY_EARLY
        self.queued.append(
            WireDelivery(
                id=id_,
                task=task,
                queue="celery",
                message=message,
                ack_policy=policy,
                attempt=lost_count,
                redelivered=lost_count > 0,
            )
        )
        self._wake.set()

    def break_links(self) -> None:
        """Let every link end, as if the network had."""
        for link in self._links:
            link.cancel()

    async def until(self, is_so: Callable[["FakeBroker"], bool]) -> None:
        """Wait until the worker has made it so."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so(self):
                self._news.clear()
                await self._news.wait()

    async def Work(  # type: ignore[override] # noqa: N802 - gRPC names its methods, and takes a coroutine too
        self, request_iterator: AsyncIterator[WorkRequest], context: Context
    ) -> None:
        if self.refusal is not None:
            await context.abort(*self.refusal)
        link = asyncio.create_task(self._talk(request_iterator, context))  # noqa: TID251 - owned: awaited below
        self._links.add(link)
        try:
            await asyncio.wait((link,))
        finally:
            self._links.discard(link)
            link.cancel()
        if link.cancelled():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the link was broken by the test")
        link.result()

    async def _talk(self, requests: AsyncIterator[WorkRequest], context: Context) -> None:
        async with asyncio.TaskGroup() as group:
            delivering = group.create_task(self._deliver(context))
            async for request in requests:
                self.said_started.update(start.id for start in request.starts)
                if request.HasField("register"):
                    await self._register(request.register, context)
                    for remark in self.remarks:
                        await self._write(context, remark)
                elif not request.seq:
                    self.asides.append(request)
                elif self.applies:
                    self._apply(request)
                    # Who has left is gone once he hears of it, and ends this task.
                    self._news.set()
                    cancels, self.revoked = self.revoked, []
                    await self._write(
                        context, WorkReply(applied_seq=self._applied_seq, cancels=cancels)
                    )
                self._news.set()
                self._wake.set()
            delivering.cancel()

    async def _register(self, register: Register, context: Context) -> None:
        self.registers.append(register)
        self._window = register.prefetch_count
        held = {(lease.id, lease.attempt) for lease in register.held}
        for id_, delivery in list(self.leased.items()):
            if (id_, delivery.attempt) not in held:
                self.queued.insert(0, self.leased.pop(id_))
        ours = {(id_, delivery.attempt) for id_, delivery in self.leased.items()}
        await self._write(
            context,
            WorkReply(
                registered=Registered(
                    broker_version="0", grace_ms=1_000, result_bytes_max=4_000_000
                ),
                applied_seq=self._applied_seq,
                lost=[WireLease(id=id_, attempt=attempt) for id_, attempt in held - ours],
            ),
        )

    def _apply(self, request: WorkRequest) -> None:
        if request.seq <= self._applied_seq:
            return
        assert request.seq == self._applied_seq + 1, "requests come without gaps"
        self._applied_seq = request.seq
        if request.HasField("prefetch_count"):
            self._window = request.prefetch_count
        self.started += [start.id for start in request.starts]
        for settle in request.settles:
            if self.leased[settle.id].attempt == settle.attempt:
                del self.leased[settle.id]
                self.settled[settle.id] = (settle.outcome, settle.result)
                self.settles.append(settle)
        for lease in request.releases:
            self.queued.insert(0, self.leased.pop(lease.id))
            self.released.append(lease.id)
        if request.HasField("unwanted"):
            self.unwanted = list(request.unwanted.tasks)
        if request.drain:
            self._window = 0
            self.has_drained = True
        self.has_left = self.has_left or request.leave

    async def _write(self, context: Context, reply: WorkReply) -> None:
        async with self._writing:
            await context.write(reply)

    async def _deliver(self, context: Context) -> None:
        while True:
            room = self._window - len(self.leased)
            wanted = [one for one in self.queued if one.task not in self.unwanted]
            batch = wanted[: max(room, 0)]
            self.queued = [one for one in self.queued if one not in batch]
            for delivery in batch:
                delivery.attempt += 1
                self.leased[delivery.id] = delivery
            self.leased_max = max(self.leased_max, len(self.leased))
            if batch:
                await self._write(context, WorkReply(deliveries=batch))
            self._wake.clear()
            await self._wake.wait()


@contextlib.asynccontextmanager
async def serving(broker: FakeBroker, port: int = 0) -> AsyncIterator[int]:
    """The broker on a free port of the loopback address, or on this one again."""
    server = grpc.aio.server(options=(("grpc.http2.min_ping_interval_without_data_ms", 1_000),))
    add_WorkerServicer_to_server(broker, server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)
