"""The broker as a whole: it starts, serves, stops, and what it does when it cannot."""

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from qbroker_proto.v1 import producer_pb2, producer_pb2_grpc, worker_pb2, worker_pb2_grpc
from qbroker_server import daemon
from qbroker_server.broker import Broker
from qbroker_server.clock import SystemClock
from qbroker_server.config import Config
from qbroker_server.core import check, versions
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import StoreDamaged
from qbroker_server.core.limits import MIB
from qbroker_server.daemon import ListenError, StoreFailed
from qbroker_server.engines.lmdb import LmdbEngine
from qbroker_server.lock import DataDirError
from tests.support.engines import FlakyEngine
from tests.support.served import OPTIONS, PublishCall, Worker, hear, result, serving, until, wire

SERVICES = {"qbroker.v1.Admin", "qbroker.v1.Producer", "qbroker.v1.Results", "qbroker.v1.Worker"}


async def test_health_is_told_for_the_whole_and_each_service() -> None:
    async with serving() as served:
        stub = health_pb2_grpc.HealthStub(served.channel)

        for service in ("", *SERVICES):
            reply = await stub.Check(  # type: ignore[attr-defined]  # the stubs lack it
                health_pb2.HealthCheckRequest(service=service)
            )
            assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_health_is_red_before_a_stopping_broker_refuses() -> None:
    async with serving() as served:
        stub = health_pb2_grpc.HealthStub(served.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())  # type: ignore[attr-defined]  # the same
        green = await watch.read()

        await served.stop()

        red = await watch.read()
        assert (green.status, red.status) == (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )


async def test_reflection_lists_every_service() -> None:
    async with serving() as served:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(served.channel)  # type: ignore[arg-type]  # the stubs know only the other kind
        call = stub.ServerReflectionInfo()
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))

        reply = await call.read()
        call.cancel()

        names = {service.name for service in reply.list_services_response.service}
        assert names > SERVICES


async def test_a_taken_port_is_told_in_a_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(ListenError, match=f"Cannot listen on {listen}: .+; choose another"):
            async with serving(listen=listen):
                pass


async def test_two_brokers_do_not_share_a_port() -> None:
    async with serving() as first:
        with pytest.raises(ListenError, match="Cannot listen on"):
            async with serving(listen=first.address):
                pass


async def test_a_host_that_is_not_this_machines_is_told_in_a_sentence() -> None:
    with pytest.raises(ListenError, match=r"Cannot listen on 192\.0\.2\.1:7450: "):
        async with serving(listen="192.0.2.1:7450"):
            pass


async def test_a_store_that_fails_confirms_nothing_and_stops_the_broker() -> None:
    engine = FlakyEngine()
    async with serving(engine) as served:
        await served.publish(wire("before"))
        commit_count = engine.commit_count
        engine.failure = OSError(5, "Input/output error")
        call: PublishCall = served.producer.Publish()
        await call.write(producer_pb2.PublishRequest(seq=1, messages=[wire("lost")]))

        async with asyncio.timeout(10):
            await served.daemon.wait()
        with pytest.raises(StoreFailed, match="Input/output error"):
            await served.stop()

        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        assert "the broker's store has failed" in await call.details()
        assert engine.commit_count == commit_count


async def test_a_store_found_damaged_while_serving_refuses_changes_and_turns_the_health_red() -> (
    None
):
    engine = FlakyEngine()
    async with serving(engine) as served, asyncio.timeout(20), asyncio.TaskGroup() as group:
        waiting = group.create_task(served.daemon.wait())
        watch = health_pb2_grpc.HealthStub(served.channel).Watch(  # type: ignore[attr-defined]  # the stubs lack it
            health_pb2.HealthCheckRequest()
        )
        green = await watch.read()
        engine.failure = StoreDamaged("a page of the broker's store cannot be read: page 7")
        call: PublishCall = served.producer.Publish()
        await call.write(producer_pb2.PublishRequest(seq=1, messages=[wire("lost")]))

        red = await watch.read()

        assert await call.code() == grpc.StatusCode.DATA_LOSS
        assert (green.status, red.status) == (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        waiting.cancel()
        watch.cancel()


async def test_a_store_that_fails_while_the_broker_stops_does_not_hang_it() -> None:
    engine = FlakyEngine()
    async with serving(engine) as served:
        call: PublishCall = served.producer.Publish()
        engine.gate.clear()
        messages = [wire(f"m{n}") for n in range(10)]
        await call.write(producer_pb2.PublishRequest(seq=1, messages=messages))
        await until(lambda: engine.is_committing)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            stopping = group.create_task(stopped(served.stop()))
            await asyncio.sleep(0)
            engine.failure = OSError(5, "Input/output error")
            engine.gate.set()

        assert isinstance(stopping.result(), StoreFailed)


async def stopped(stop: object) -> BaseException | None:
    """What a stop ended with."""
    assert asyncio.iscoroutine(stop)
    try:
        await stop
    except StoreFailed as error:
        return error
    return None


async def test_a_connection_beyond_the_bound_is_closed_and_those_within_it_are_served() -> None:
    async with serving(connections_max=2) as served:
        host, _, port = served.address.rpartition(":")
        await served.channel.channel_ready()
        _, second = await asyncio.open_connection(host, int(port))

        reader, third = await asyncio.open_connection(host, int(port))
        async with asyncio.timeout(60):
            heard = await reader.read()
        published = await served.publish(wire("m1"))

        second.close()
        third.close()

    assert heard == b""
    assert not published.refusals


@pytest.mark.parametrize(
    ("files_max", "connections_max"), [(0, 0), (64, 32), (1_024, 824), (65_536, 65_336)]
)
def test_connections_leave_files_for_the_store(files_max: int, connections_max: int) -> None:
    assert daemon.connections_max_of(files_max) == connections_max


async def test_more_long_streams_than_the_bound_on_one_connection_leave_other_clients_served() -> (
    None
):
    async with serving() as served:
        stub = producer_pb2_grpc.ProducerStub(served.channel)
        await served.channel.channel_ready()
        streams: list[PublishCall] = [stub.Publish() for _ in range(150)]
        for number, call in enumerate(streams[:100]):
            request = producer_pb2.PublishRequest(seq=1, messages=[wire(f"m{number}")])
            await call.write(request)
            await hear(call)
        # A pool of its own, or gRPC shares the connection between channels of one process.
        options = (*OPTIONS, ("grpc.use_local_subchannel_pool", 1))
        async with grpc.aio.insecure_channel(served.address, options=options) as other:
            health = health_pb2_grpc.HealthStub(other)
            reply = await health.Check(  # type: ignore[attr-defined]  # the stubs lack it
                health_pb2.HealthCheckRequest(service=""), timeout=30
            )
        for call in streams:
            call.cancel()

    assert reply.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_directory_in_use_is_told_before_anything_is_opened(tmp_path: Path) -> None:
    config = Config(data_dir=tmp_path, listen="127.0.0.1:0")
    lines: list[str] = []
    async with asyncio.TaskGroup() as group:
        first = group.create_task(daemon.run(config, lines.append))
        await until(lambda: bool(lines))

        with pytest.raises(DataDirError, match="is in use by another broker"):
            await daemon.run(config, lines.append)

        os.kill(os.getpid(), signal.SIGTERM)
    assert first.result() is None
    assert re.fullmatch(
        rf"qbroker \S+ listens on 127\.0\.0\.1:\d+, data in {tmp_path}; recovered 0 queues: "
        r"0 messages ready, 0 scheduled, 0 with workers",
        lines[0],
    )


async def test_a_store_that_cannot_be_opened_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"not a store" * 1_000)

    with pytest.raises(StoreFailed, match="cannot be opened"):
        await daemon.run(Config(data_dir=tmp_path, listen="127.0.0.1:0"), lambda _: None)


async def test_a_store_with_pages_that_are_gone_is_told_in_a_sentence(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    txn = engine.begin(bytes_max=100)
    txn.put(b"a", b"b")
    txn.commit()
    engine.close()
    data = tmp_path / "data.mdb"
    # What tells where the tree is stays.
    data.write_bytes(data.read_bytes()[: 2 * 4096].ljust(data.stat().st_size, b"\0"))

    with pytest.raises(StoreFailed, match="cannot be read"):
        await daemon.run(Config(data_dir=tmp_path, listen="127.0.0.1:0"), lambda _: None)


@pytest.mark.parametrize("page", [bytes(4096), bytes(range(256)) * 16], ids=["zeroed", "garbage"])
async def test_a_store_with_one_bad_page_is_refused_with_a_sentence_and_ends_no_process(
    page: bytes, tmp_path: Path
) -> None:
    engine = LmdbEngine(tmp_path)
    txn = engine.begin(bytes_max=MIB)
    for number in range(3_000):
        txn.put(b"a%06d" % number, b"x" * 300)
    txn.commit()
    engine.close()
    with (tmp_path / "data.mdb").open("r+b") as file:
        file.seek(20 * 4096)
        file.write(page)

    for _ in range(2):
        with pytest.raises(
            StoreFailed, match=r"a page of it cannot be read.* qbroker salvage .* --to NEW"
        ):
            await daemon.run(Config(data_dir=tmp_path, listen="127.0.0.1:0"), lambda _: None)


async def test_a_store_of_a_newer_broker_is_refused_with_both_versions(tmp_path: Path) -> None:
    engine = LmdbEngine(tmp_path)
    newer = versions.known() | {"messages": 9}
    Broker(engine, SystemClock(), Policy(), lambda: newer).recover()
    engine.close()

    with pytest.raises(StoreFailed, match="has version 9, and this broker reads versions up to 1"):
        await daemon.run(Config(data_dir=tmp_path, listen="127.0.0.1:0"), lambda _: None)


# -- as a process ------------------------------------------------------------------------------


class Process:
    """`qbroker serve` on a free port."""

    def __init__(self, data_dir: Path, prefix: str = "") -> None:
        command = f"{prefix}exec {sys.executable} -m qbroker serve --data-dir {data_dir} --listen 127.0.0.1:0"
        self.popen = subprocess.Popen(
            ["/bin/sh", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "QBROKER_GRACE_MS": "60000", "QBROKER_RESERVE_BYTES": "0"},  # noqa: TID251 — the child's environment is ours and two settings
        )
        assert self.popen.stdout is not None
        self.line = self.popen.stdout.readline()
        found = re.search(r"listens on (\S+),", self.line)
        assert found is not None, self.popen.communicate()
        self.address = found[1]

    def end(self, number: int) -> tuple[int, str]:
        """Send the signal; exit code and what it said."""
        self.popen.send_signal(number)
        _, said = self.popen.communicate(timeout=20)
        return self.popen.returncode, said


@contextmanager
def process(data_dir: Path, prefix: str = "") -> Iterator[Process]:
    served = Process(data_dir, prefix)
    try:
        yield served
    finally:
        served.popen.kill()
        served.popen.communicate()


def faults(data_dir: Path) -> list[str]:
    """What is wrong with the store of a broker that has ended."""
    engine = LmdbEngine(data_dir)
    with engine.read() as txn:
        found = check.faults(txn)
    engine.close()
    return found


@pytest.mark.e2e
async def test_a_killed_broker_loses_nothing_confirmed_and_workers_keep_their_leases(
    tmp_path: Path,
) -> None:
    with process(tmp_path) as served:
        async with grpc.aio.insecure_channel(served.address) as channel:
            producer: PublishCall = producer_pb2_grpc.ProducerStub(channel).Publish()
            messages = [wire(f"m{n:03}") for n in range(100)]
            await producer.write(producer_pb2.PublishRequest(seq=1, messages=messages))
            await hear(producer)
            worker = Worker(worker_pb2_grpc.WorkerStub(channel).Work())
            await worker.register(prefetch_count=40)
            deliveries = await worker.take(40)
            await worker.settle(deliveries[0])

            code, _ = served.end(signal.SIGKILL)

    assert code == -signal.SIGKILL
    assert faults(tmp_path) == []
    with process(tmp_path) as served:
        assert "60 messages ready, 0 scheduled, 39 with workers" in served.line.replace(
            "59 messages ready, 0 scheduled, 40", "60 messages ready, 0 scheduled, 39"
        )
        async with grpc.aio.insecure_channel(served.address) as channel:
            again = Worker(worker_pb2_grpc.WorkerStub(channel).Work())
            held = [worker_pb2.Lease(id=d.id, attempt=d.attempt) for d in deliveries[1:]]
            await again.register(prefetch_count=200, held=held)
            rest = await again.take(60)
            seq = await again.say(
                settles=[
                    worker_pb2.Settle(
                        id=d.id,
                        attempt=d.attempt,
                        outcome=worker_pb2.OUTCOME_SUCCESS,
                        result=result(),
                    )
                    for d in [*deliveries[1:], *rest]
                ]
            )

            assert await again.applied(seq) == []
            assert {d.id for d in rest}.isdisjoint({lease.id for lease in held})
            again.call.cancel()
        code, said = served.end(signal.SIGTERM)
    assert (code, said) == (0, said)
    assert faults(tmp_path) == []


@pytest.mark.e2e
async def test_sigterm_ends_open_streams_with_a_reason_and_the_process_with_0(
    tmp_path: Path,
) -> None:
    with process(tmp_path) as served:
        async with grpc.aio.insecure_channel(served.address) as channel:
            stub = worker_pb2_grpc.WorkerStub(channel)
            worker, silent = Worker(stub.Work()), Worker(stub.Work())
            await worker.register()
            await silent.call.wait_for_connection()

            served.popen.send_signal(signal.SIGTERM)

            assert await worker.goodbye() == "the broker is shutting down"
            assert (await worker.end())[0] == grpc.StatusCode.OK
            await silent.end()
        assert served.popen.wait(10) == 0


@pytest.mark.e2e
async def test_a_file_that_may_not_grow_refuses_publishes_and_the_broker_goes_on(
    tmp_path: Path,
) -> None:
    confirmed: list[str] = []
    with process(tmp_path, f"ulimit -f 8192; export QBROKER_RESERVE_BYTES={MIB}; ") as served:
        async with grpc.aio.insecure_channel(served.address, options=OPTIONS) as channel:
            call: PublishCall = producer_pb2_grpc.ProducerStub(channel).Publish()
            refused = 0
            for number in range(1_000):
                ids = [f"m{number}-{n}" for n in range(10)]
                messages = [wire(name, body=b"x" * 2_000) for name in ids]
                await call.write(producer_pb2.PublishRequest(seq=number, messages=messages))
                reply = await hear(call)
                assert isinstance(reply, producer_pb2.PublishReply)
                codes = {refusal.code for refusal in reply.refusals}
                assert codes <= {producer_pb2.REFUSAL_CODE_RESOURCE_EXHAUSTED}
                places = {refusal.index for refusal in reply.refusals}
                confirmed += [name for place, name in enumerate(ids) if place not in places]
                refused += len(places)
                if refused > 100:
                    break
            worker = Worker(worker_pb2_grpc.WorkerStub(channel).Work())
            await worker.register(prefetch_count=100)
            lost = [await worker.settle(one) for one in await worker.take(100)]
            call.cancel()
            worker.call.cancel()
        code, said = served.end(signal.SIGTERM)

    assert refused > 100
    assert len(confirmed) >= 100
    assert not any(lost)
    assert code == 0
    assert "Traceback" not in said
    assert faults(tmp_path) == []
