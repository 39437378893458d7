"""Builds the parts and joins them; starts, drains, stops."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from importlib.metadata import version

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from qbroker_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    control_pb2,
    control_pb2_grpc,
    periodic_pb2,
    periodic_pb2_grpc,
    producer_pb2,
    producer_pb2_grpc,
    results_pb2,
    results_pb2_grpc,
    worker_pb2,
    worker_pb2_grpc,
    workflow_pb2,
    workflow_pb2_grpc,
)
from qbroker_server.broker import Broker, Recovered, Step
from qbroker_server.clock import Clock, SystemClock
from qbroker_server.config import Config
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import NewerVersion, StoreDamaged
from qbroker_server.core.ports import Engine, StoreError
from qbroker_server.engines.lmdb import LmdbEngine, is_whole
from qbroker_server.engines.memory import MemoryEngine
from qbroker_server.http.metrics import Metrics
from qbroker_server.http.pages import Pages, serving, verdict
from qbroker_server.lock import owned
from qbroker_server.pump import Pump
from qbroker_server.rates import Rates
from qbroker_server.rpc.admin import Admin
from qbroker_server.rpc.almanac import WireAlmanac
from qbroker_server.rpc.calls import Calls
from qbroker_server.rpc.control import Control
from qbroker_server.rpc.hub import Hub
from qbroker_server.rpc.periodic import Periodic
from qbroker_server.rpc.publish import Producer
from qbroker_server.rpc.requests import Reading
from qbroker_server.rpc.results import Results
from qbroker_server.rpc.streams import Streams
from qbroker_server.rpc.work import Worker
from qbroker_server.rpc.workflows import Workflows
from qbroker_server.sweeper import Sweeper

logger = logging.getLogger(__name__)

_RECEIVE_BYTES_MAX = 64 * 1024 * 1024
"""Of one gRPC message, a batch or a workflow. One message in it is bounded by the setting max_message_bytes."""

# gRPC logs whole headers that it cannot decode, megabytes of a peer's choice for each call.
logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)

_STREAMS_MAX = 100
"""Calls at once on one connection. With 1,000 two connections that reset their calls made others five times slower."""

_METADATA_BYTES_MAX = 8 * 1024
"""Of the headers of one call."""

_HANDSHAKE_MS = 5_000
"""How long a new connection may take to send HTTP/2's preface and acknowledge the broker's settings.

gRPC applies its bounds on headers and streams to a connection from that acknowledgement on.
"""

_FILES_KEPT = 200
"""File descriptors that connections leave for the store, the log and the pages over HTTP."""

_OPTIONS = (
    ("grpc.max_receive_message_length", _RECEIVE_BYTES_MAX),
    ("grpc.max_send_message_length", _RECEIVE_BYTES_MAX),
    # Two brokers on one port would each get some of the connections.
    ("grpc.so_reuseport", 0),
    # A peer that vanished without a word is found within 15 seconds.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Without it gRPC waits a minute for the answer to its ping, whatever the time-out above says.
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    # Without a table a peer cannot have a large header unpacked again by a reference of one byte.
    ("grpc.http2.hpack_table_size.decoder", 0),
    # Calls beyond it wait in the client for one that ends.
    ("grpc.max_concurrent_streams", _STREAMS_MAX),
    # It refuses calls of an honest client too, when many end and begin at once.
    ("grpc.http.overload_protection", 0),
    # Ours send a few hundred bytes; the absolute one ends the call while its headers still arrive.
    ("grpc.max_metadata_size", _METADATA_BYTES_MAX),
    ("grpc.absolute_max_metadata_size", 2 * _METADATA_BYTES_MAX),
    # The first ends at the peer's settings, the second at its acknowledgement of ours.
    ("grpc.server_handshake_timeout_ms", _HANDSHAKE_MS),
    ("grpc.http2.settings_timeout", _HANDSHAKE_MS),
)

_SERVICES = (
    admin_pb2.DESCRIPTOR.services_by_name["Admin"].full_name,
    control_pb2.DESCRIPTOR.services_by_name["Control"].full_name,
    periodic_pb2.DESCRIPTOR.services_by_name["Periodic"].full_name,
    workflow_pb2.DESCRIPTOR.services_by_name["Workflows"].full_name,
    producer_pb2.DESCRIPTOR.services_by_name["Producer"].full_name,
    results_pb2.DESCRIPTOR.services_by_name["Results"].full_name,
    worker_pb2.DESCRIPTOR.services_by_name["Worker"].full_name,
)


_LOOKERS_S = 0.2
"""How long a stopping broker waits for calls that nothing depends on."""


class ListenError(Exception):
    """The address cannot be listened on; the text is a sentence that says why."""


class StoreFailed(Exception):
    """The store cannot be opened, or failed to commit: what was not confirmed may or may not be on disk."""


async def run(config: Config, announce: Callable[[str], None], *, files_max: int = 0) -> None:
    """Serve until TERM or INT, then stop in order; this process may have `files_max` files open, 0: any number.

    DataDirError, ListenError: it cannot start. StoreFailed: it had to stop at once.
    """
    with ExitStack() as stack:
        engine: Engine
        if config.engine == "memory":
            engine = MemoryEngine()
        else:
            stack.enter_context(owned(config.data_dir))
            # LMDB ends its process at some bad pages, so a child walks over all of them first.
            if (config.data_dir / "data.mdb").exists() and not is_whole(config.data_dir):
                raise StoreFailed(
                    f"The store in {config.data_dir} cannot be opened: data.mdb is shorter than it was, or a page of it cannot be read. "
                    f"See what is damaged with: qbroker check {config.data_dir}. "
                    f"Copy what can be read to a new store with: qbroker salvage {config.data_dir} --to NEW. "
                    "Or restore data.mdb from a backup, or choose another directory with --data-dir."
                )
            try:
                engine = LmdbEngine(config.data_dir, reserve_bytes=config.reserve_bytes)
            except StoreError as error:
                raise StoreFailed(str(error)) from error
        stack.callback(engine.close)
        clock = SystemClock()
        policy = Policy(
            result_ttl_ms=config.result_ttl_ms,
            memory_ms=config.memory_ms,
            deaths_max=config.max_deliveries,
            reserve_bytes=config.reserve_bytes,
        )
        broker = Broker(engine, clock, policy)
        try:
            recovered = broker.recover()
        except StoreDamaged as error:
            raise StoreFailed(
                f"The store in {config.data_dir} cannot be used: {error}. "
                "Restore data.mdb from a backup, or choose another directory with --data-dir."
            ) from error
        except NewerVersion as error:
            raise StoreFailed(
                f"The store in {config.data_dir} was written by a newer broker: {error}. Nothing in it was changed. "
                "Start that release of qbroker, or choose another directory with --data-dir."
            ) from error
        daemon = Daemon(config, broker, clock, connections_max=connections_max_of(files_max))
        port = await daemon.start(recovered)
        async with daemon.pages():
            announce(_announcement(config, port, recovered))
            await daemon.wait()
            await daemon.stop()


def connections_max_of(files_max: int) -> int:
    """Most connections of a process with so many files: some files are kept for the store."""
    return max(files_max // 2, files_max - _FILES_KEPT)


class Daemon:
    """The parts of a running broker around its core."""

    def __init__(
        self, config: Config, broker: Broker, clock: Clock, *, connections_max: int = 0
    ) -> None:
        """Build the parts; 0 bounds the connections by nothing but the files of this process."""
        self._config = config
        self._broker = broker
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._is_stopping = False
        self._damaged = asyncio.Event()
        bound = (("grpc.max_allowed_incoming_connections", connections_max),)
        self._server = grpc.aio.server(
            options=(*_OPTIONS, *(bound if connections_max else ())), interceptors=[Reading()]
        )
        self._streams = Streams()
        self._health = health.aio.HealthServicer()
        self._pump = Pump(broker, clock, self._fail)
        almanac = WireAlmanac(message_bytes_max=config.max_message_bytes)
        self._sweeper = Sweeper(broker, self._pump, clock, almanac)
        release = version("qbroker")
        calls = Calls()
        hub = Hub(clock)
        self._worker = Worker(
            broker,
            self._pump,
            self._streams,
            calls,
            hub,
            version=release,
            grace_ms=config.grace_ms,
            message_bytes_max=config.max_message_bytes,
        )
        producer = Producer(self._pump, self._streams, message_bytes_max=config.max_message_bytes)
        results = Results(broker, self._pump, self._streams)
        rates = Rates(clock)
        broker.listeners.append(rates)
        broker.listeners.append(self)
        self._metrics = Metrics(broker, version=release)
        if config.http_listen:
            broker.listeners.append(self._metrics)
        admin = Admin(broker, self._pump, self._worker, rates, clock, version=release)
        control = Control(broker, self._worker, calls, hub, self._streams)
        control_pb2_grpc.add_ControlServicer_to_server(control, self._server)
        periodic = Periodic(broker, self._pump, clock, almanac)
        workflows = Workflows(broker, self._pump, self._worker)
        worker_pb2_grpc.add_WorkerServicer_to_server(self._worker, self._server)
        producer_pb2_grpc.add_ProducerServicer_to_server(producer, self._server)
        results_pb2_grpc.add_ResultsServicer_to_server(results, self._server)
        admin_pb2_grpc.add_AdminServicer_to_server(admin, self._server)
        periodic_pb2_grpc.add_PeriodicServicer_to_server(periodic, self._server)
        workflow_pb2_grpc.add_WorkflowsServicer_to_server(workflows, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    async def start(self, recovered: Recovered, *, heeds_signals: bool = True) -> int:
        """Listen; answers the port. ListenError when that cannot be."""
        listen = self._config.listen
        try:
            # gRPC says only that it failed, and that on stderr in its own words; a socket says why.
            _try_address(listen)
            port = self._server.add_insecure_port(listen)
        except (OSError, RuntimeError) as error:
            self._pump.stop()
            raise ListenError(
                f"Cannot listen on {listen}: {_reason(error)}; choose another address with --listen HOST:PORT."
            ) from error
        if heeds_signals:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
        await self._server.start()
        for service in ("", *_SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        # They were connected when the last broker ended, so they have as long as if the stream broke now.
        for session in recovered.sessions:
            self._worker.await_return(session)
        # Workers may find what was waiting before anybody publishes.
        self._pump.nudge()
        return port

    @asynccontextmanager
    async def pages(self) -> AsyncIterator[int]:
        """Serve the pages for probes and metrics, where they are asked for; gives the port, or 0.

        ListenError, and the broker has stopped, when that cannot be.
        """
        listen = self._config.http_listen
        if not listen:
            yield 0
            return
        found: Pages = {
            "/livez": lambda: verdict(""),
            "/readyz": lambda: verdict(self._trouble()),
            "/metrics": self._metrics.page,
        }
        async with AsyncExitStack() as stack:
            try:
                port = await stack.enter_async_context(serving(listen, found))
            except OSError as error:
                await self.stop()
                raise ListenError(
                    f"Cannot listen on {listen}: {_reason(error)}; choose another address with --http-listen HOST:PORT."
                ) from error
            yield port

    def stepped(self, step: Step) -> None:
        """Have the health told when the store is found damaged."""
        del step  # What matters is not in it.
        if self._broker.damage is not None:
            self._damaged.set()

    async def _tell_damage(self) -> None:
        await self._damaged.wait()
        for service in ("", *_SERVICES):
            await self._health.set(service, health_pb2.HealthCheckResponse.NOT_SERVING)

    def _trouble(self) -> str:
        if self._failure is not None:
            return f"the store failed: {self._failure}"
        if self._broker.trouble:
            return self._broker.trouble
        return "the broker is shutting down" if self._is_stopping else ""

    async def wait(self) -> None:
        """Until somebody asks the broker to stop, or it must."""
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell_damage())
            await self._stop.wait()
            telling.cancel()

    async def stop(self) -> None:
        """Take nothing new, finish what was taken, say goodbye; StoreFailed when that is the cause."""
        self._is_stopping = True
        await self._health.enter_graceful_shutdown()
        await self._end_if_failed()
        self._worker.stop()
        self._sweeper.stop()
        drain_s = self._config.drain_ms / 1000
        async with asyncio.TaskGroup() as group:
            # Nobody new is let in while those who are there finish.
            group.create_task(self._server.stop(grace=drain_s))
            await self._streams.close_all("the broker is shutting down", drain_s)
            await self._pump.drain()
            # Who is still there only looks on: probes that watch the health.
            await self._server.stop(grace=min(drain_s, _LOOKERS_S))
        await self._end_if_failed()
        self._pump.stop()

    async def sweep(self) -> None:
        """Do what is due by the clock as it is now; for those who move it."""
        await self._sweeper.sweep()

    async def crash(self) -> None:
        """End as a kill would: what was committed stays, and nobody is answered any more."""
        self._sweeper.stop()
        self._worker.stop()
        await self._server.stop(grace=None)
        await self._pump.drain()
        self._pump.stop()

    async def _end_if_failed(self) -> None:
        if self._failure is None:
            return
        # Nothing may be confirmed any more: the streams end, and clients send again.
        await self._streams.close_all("the broker's store has failed", _LOOKERS_S)
        await self._server.stop(grace=None)
        raise StoreFailed(
            f"The store failed, so the broker stops: {self._failure}. What was not confirmed may or may not be stored."
        ) from self._failure

    def _fail(self, error: BaseException) -> None:
        logger.critical("The store failed: %r", error)
        self._failure = error
        self._stop.set()


def _reason(error: OSError | RuntimeError) -> str:
    """What the system says of an address, without the address again: asyncio and socket add it."""
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _try_address(listen: str) -> None:
    """Raise OSError when nobody could listen there."""
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    socket.create_server((host, int(port)), family=family).close()


def _announcement(config: Config, port: int, recovered: Recovered) -> str:
    host = config.listen.rpartition(":")[0]
    where = (
        "in memory, nothing is kept" if config.engine == "memory" else f"data in {config.data_dir}"
    )
    return (
        f"qbroker {version('qbroker')} listens on {host}:{port}, {where}; recovered "
        f"{recovered.queue_count} queues: {recovered.ready_count} messages ready, "
        f"{recovered.scheduled_count} scheduled, {recovered.leased_count} with workers"
    )
