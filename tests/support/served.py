"""A broker served on a free port, in this process, and clients that speak the wire to it."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any, Self, TypeAlias

import grpc

from qbroker_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    control_pb2_grpc,
    message_pb2,
    producer_pb2,
    producer_pb2_grpc,
    results_pb2,
    results_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
    workflow_pb2_grpc,
)
from qbroker_server.broker import Broker
from qbroker_server.clock import SystemClock
from qbroker_server.config import Config
from qbroker_server.core.effects import Policy
from qbroker_server.core.ports import Engine
from qbroker_server.daemon import Daemon
from qbroker_server.engines.memory import MemoryEngine

WAIT_S = 10.0
"""How long an answer may take on a machine with other things to do."""

OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))

TASK = "proj.add"
QUEUE = "celery"

PublishCall: TypeAlias = (
    "grpc.aio.StreamStreamCall[producer_pb2.PublishRequest, producer_pb2.PublishReply]"
)
WorkCall: TypeAlias = "grpc.aio.StreamStreamCall[worker_pb2.WorkRequest, worker_pb2.WorkReply]"
WatchCall: TypeAlias = "grpc.aio.StreamStreamCall[results_pb2.WatchRequest, results_pb2.WatchReply]"


def wire(message_id: str = "m1", **fields: Any) -> bytes:  # noqa: ANN401 — any field of the wire's message
    """A message as it is published."""
    message = message_pb2.Message(id=message_id, task=TASK, queue=QUEUE, body=b"[[], {}, {}]")
    message.MergeFrom(message_pb2.Message(**fields))
    return message.SerializeToString()


def result(state: str = "SUCCESS", body: bytes = b"4") -> bytes:
    """A result as a worker settles with."""
    return message_pb2.Result(state=state, body=body).SerializeToString()


class Worker:
    """One work stream."""

    def __init__(self, call: WorkCall) -> None:
        self.call = call
        self.replies: list[worker_pb2.WorkReply] = []
        """Heard, but not looked at."""
        self.deliveries: list[worker_pb2.Delivery] = []
        """Heard, but not taken."""
        self.seq = 0

    async def say(self, **fields: Any) -> int:  # noqa: ANN401 — any field of the wire's request
        """Send a request; its number."""
        self.seq += 1
        request = worker_pb2.WorkRequest(seq=self.seq, **fields)
        async with asyncio.timeout(WAIT_S):
            await self.call.write(request)
        return self.seq

    async def register(
        self,
        session: str = "s1",
        *,
        queues: Iterable[str] = (QUEUE,),
        tasks: Iterable[str] = (TASK,),
        prefetch_count: int = 10,
        held: Iterable[worker_pb2.Lease] = (),
        topology: admin_pb2.Topology | None = None,
    ) -> worker_pb2.WorkReply:
        """Register and hear the answer."""
        await self.say(
            register=worker_pb2.Register(
                session_id=session,
                name=f"{session}@host",
                queues=queues,
                tasks=tasks,
                prefetch_count=prefetch_count,
                held=held,
                topology=topology,
            )
        )
        reply = await self.hear()
        assert reply.HasField("registered")
        self.replies.append(reply)
        return reply

    async def hear(self) -> worker_pb2.WorkReply:
        """The next reply."""
        if self.replies:
            return self.replies.pop(0)
        async with asyncio.timeout(WAIT_S):
            reply = await self.call.read()
        assert isinstance(reply, worker_pb2.WorkReply), await self.end()
        return reply

    async def take(self, count: int = 1) -> list[worker_pb2.Delivery]:
        """The next deliveries."""
        while len(self.deliveries) < count:
            self.deliveries += (await self.hear()).deliveries
        found, self.deliveries = self.deliveries, []
        return found

    async def applied(self, seq: int) -> list[worker_pb2.Lease]:
        """Wait until the request is on disk; the leases that were lost by then."""
        lost: list[worker_pb2.Lease] = []
        while True:
            reply = await self.hear()
            lost += reply.lost
            self.deliveries += reply.deliveries
            if reply.applied_seq >= seq:
                return lost

    async def settle(
        self,
        delivery: worker_pb2.Delivery,
        outcome: worker_pb2.Outcome = worker_pb2.OUTCOME_SUCCESS,
        body: bytes | None = None,
        **fields: Any,  # noqa: ANN401 — any other field of the wire's settle
    ) -> list[worker_pb2.Lease]:
        """Settle and wait until it is on disk; the leases that were lost by then."""
        settle = worker_pb2.Settle(
            id=delivery.id,
            attempt=delivery.attempt,
            outcome=outcome,
            result=result() if body is None else body,
            **fields,
        )
        return await self.applied(await self.say(settles=[settle]))

    async def goodbye(self) -> str:
        """The broker's last words."""
        while True:
            reply = await self.hear()
            if reply.goodbye:
                return reply.goodbye

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """How the stream ended, which is heard after all that was said before."""
        async with asyncio.timeout(WAIT_S):
            with suppress(grpc.aio.AioRpcError):
                while not self.call.done() and await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details()


class Served:
    """A running broker and a channel to it."""

    def __init__(
        self, daemon: Daemon, broker: Broker, channel: grpc.aio.Channel, address: str
    ) -> None:
        self.daemon = daemon
        self._is_stopped = False
        self.address = address
        self.broker = broker
        self.channel = channel
        self.producer = producer_pb2_grpc.ProducerStub(channel)
        self.worker = worker_pb2_grpc.WorkerStub(channel)
        self.results = results_pb2_grpc.ResultsStub(channel)
        self.admin = admin_pb2_grpc.AdminStub(channel)
        self.control = control_pb2_grpc.ControlStub(channel)
        self.workflows = workflow_pb2_grpc.WorkflowsStub(channel)

    async def stop(self) -> None:
        """Stop the broker, as SIGTERM does."""
        if not self._is_stopped:
            self._is_stopped = True
            await self.daemon.stop()

    async def publish(self, *messages: bytes) -> producer_pb2.PublishReply:
        """Publish one batch on a stream of its own."""
        call: PublishCall = self.producer.Publish()
        await call.write(producer_pb2.PublishRequest(seq=1, messages=messages))
        reply = await hear(call)
        await call.done_writing()
        assert await call.code() == grpc.StatusCode.OK
        assert isinstance(reply, producer_pb2.PublishReply)
        return reply

    def work(self) -> Worker:
        """A new work stream."""
        return Worker(self.worker.Work())

    def watch(self) -> "Watch":
        """A new watch stream."""
        return Watch(self.results.Watch())

    def raw(self, method: str) -> "grpc.aio.StreamStreamCall[bytes, bytes]":
        """A stream of bytes that nobody checks."""
        return self.channel.stream_stream(method)()

    async def state(self, message_id: str = "m1") -> results_pb2.TaskState:
        """Where a task is now."""
        watch = self.watch()
        await watch.say(read=[message_id])
        (state,) = await watch.hear()
        watch.call.cancel()
        return state

    async def status(self) -> admin_pb2.StatusReply:
        """The broker at a glance."""
        return await self.admin.Status(admin_pb2.StatusRequest(), timeout=WAIT_S)

    async def is_alive(self) -> bool:
        """Whether a newcomer can still publish and look."""
        fresh = f"alive-{self.broker.engine.stored_bytes()}"
        reply = await self.publish(wire(fresh, queue="alive"))
        return not reply.refusals and (await self.state(fresh)).stage == results_pb2.STAGE_QUEUED


class Watch:
    """One watch stream."""

    def __init__(self, call: WatchCall) -> None:
        self.call = call

    async def say(self, **fields: Any) -> Self:  # noqa: ANN401 — any field of the wire's request
        """Send a request."""
        async with asyncio.timeout(WAIT_S):
            await self.call.write(results_pb2.WatchRequest(**fields))
        return self

    async def hear(self) -> list[results_pb2.TaskState]:
        """The states in the next reply."""
        reply = await hear(self.call)
        assert isinstance(reply, results_pb2.WatchReply), await self.call.details()
        return list(reply.states)

    async def states(self, count: int) -> list[results_pb2.TaskState]:
        """The next states."""
        found: list[results_pb2.TaskState] = []
        while len(found) < count:
            found += await self.hear()
        return found


async def until(is_so: Callable[[], bool]) -> None:
    """Let everybody else have a turn until it is so."""
    async with asyncio.timeout(WAIT_S):
        while not is_so():  # noqa: ASYNC110 — what it waits for is told by no event
            await asyncio.sleep(0)


async def hear(call: "PublishCall | WatchCall | WorkCall") -> object:
    """The next reply of a stream, or grpc.aio.EOF at its end."""
    async with asyncio.timeout(WAIT_S):
        return await call.read()


@asynccontextmanager
async def serving(
    engine: Engine | None = None,
    *,
    connections_max: int = 0,
    **settings: Any,  # noqa: ANN401 — any setting
) -> AsyncIterator[Served]:
    """A broker on a free port until the block ends."""
    config = Config(**{"listen": "127.0.0.1:0", "drain_ms": 2_000, **settings})
    clock = SystemClock()
    policy = Policy(
        result_ttl_ms=config.result_ttl_ms,
        memory_ms=config.memory_ms,
        deaths_max=config.max_deliveries,
        reserve_bytes=config.reserve_bytes,
    )
    broker = Broker(engine or MemoryEngine(), clock, policy)
    recovered = broker.recover()
    daemon = Daemon(config, broker, clock, connections_max=connections_max)
    port = await daemon.start(recovered)
    address = f"127.0.0.1:{port}"
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        served = Served(daemon, broker, channel, address)
        try:
            yield served
        finally:
            await channel.close(grace=0)
            await served.stop()
