"""The real broker on a thread of the test's process, and a worker in a few lines that runs what it delivers.

Where a rule is the broker's, a fake would only repeat what the test's writer believes of it.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator

import grpc

from qbroker import App
from qbroker.app.trace import Ran, Runner, build_runner
from qbroker_proto.v1.worker_pb2 import (
    Cancel,
    Delivery,
    Register,
    Settle,
    Start,
    WorkReply,
    WorkRequest,
)
from qbroker_server.broker import Broker
from qbroker_server.clock import SystemClock
from qbroker_server.config import Config
from qbroker_server.core.effects import Policy
from qbroker_server.daemon import Daemon
from qbroker_server.engines.memory import MemoryEngine

WAIT_S = 10.0


class _Loop(asyncio.SelectorEventLoop):
    """Leaves signals to the main thread, which alone may handle them."""

    def add_signal_handler(self, sig: int, callback: object, *args: object) -> None: ...


class RealBroker:
    """Serves from `start` to `stop`, from memory."""

    def __init__(self) -> None:
        self.port = 0
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: asyncio.Event | None = None

    @property
    def url(self) -> str:
        return f"qbroker://127.0.0.1:{self.port}"

    def start(self) -> "RealBroker":
        self._thread.start()
        assert self._is_up.wait(WAIT_S)
        return self

    def stop_now(self) -> None:
        """Begin to stop; `stop` waits for the end."""
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        config = Config(listen="127.0.0.1:0", drain_ms=1_000)
        clock = SystemClock()
        policy = Policy(
            result_ttl_ms=config.result_ttl_ms,
            memory_ms=config.memory_ms,
            deaths_max=config.max_deliveries,
            reserve_bytes=config.reserve_bytes,
        )
        broker = Broker(MemoryEngine(), clock, policy)
        daemon = Daemon(config, broker, clock)
        self.port = await daemon.start(broker.recover())
        self._is_up.set()
        await self._end.wait()
        await daemon.stop()


class ToyWorker:
    """Takes from the queues one delivery at a time, when it is told to."""

    def __init__(self, app: App, url: str, *queues: str) -> None:
        self.run: Runner = build_runner(app, hostname="toy@here")
        self.ran: list[Ran] = []
        self.cancels: list[Cancel] = []
        self._seq = 0
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._deliveries: list[Delivery] = []
        self._channel = grpc.insecure_channel(url.removeprefix("qbroker://"))
        work: Callable[..., Iterator[bytes]] = self._channel.stream_stream(
            "/qbroker.v1.Worker/Work"
        )
        self._replies: Iterator[bytes] = work(iter(self._out.get, None), timeout=WAIT_S)
        self._say(
            register=Register(
                session_id="toy",
                name="toy@here",
                queues=queues or ("celery",),
                tasks=list(app.tasks),
                prefetch_count=1,
            )
        )

    def _say(self, **fields: object) -> int:
        self._seq += 1
        self._out.put(WorkRequest(seq=self._seq, **fields).SerializeToString())  # type: ignore[arg-type] # as given
        return self._seq

    def _hear(self) -> int:
        """Take a reply in; the last request that is on disk."""
        reply = WorkReply.FromString(next(self._replies))
        self._deliveries += reply.deliveries
        self.cancels += reply.cancels
        return reply.applied_seq

    def take(self) -> Delivery:
        """The next delivery, started."""
        while not self._deliveries:
            self._hear()
        delivery = self._deliveries.pop(0)
        self._apply(starts=[Start(id=delivery.id, attempt=delivery.attempt)])
        return delivery

    def settle(self, delivery: Delivery, **fields: object) -> None:
        """Say how it ended, and wait until that is on disk."""
        self._apply(settles=[Settle(id=delivery.id, attempt=delivery.attempt, **fields)])  # type: ignore[arg-type] # as given

    def _apply(self, **fields: object) -> None:
        seq = self._say(**fields)
        while self._hear() < seq:
            pass

    def work(self, count: int = 1) -> list[Ran]:
        """Run so many deliveries, as a worker does."""
        for _ in range(count):
            delivery = self.take()
            ran = self.run(delivery.message, delivery.attempt, delivery.redelivered)
            self.ran.append(ran)
            self.settle(
                delivery,
                outcome=ran.outcome,
                result=ran.result,
                requeue=ran.requeue,
                message=ran.message,
                eta_ms=ran.eta_ms,
                detail=ran.detail,
            )
        return self.ran[-count:]

    def leave(self) -> None:
        self._out.put(None)
        self._channel.close()
