"""Peers that attack the port: the broker's memory stays bounded, and good clients are served."""

import asyncio
import re
import sys
from pathlib import Path

import grpc
import pytest

from qbroker_proto.v1 import producer_pb2, producer_pb2_grpc
from tests.e2e import hostile
from tests.e2e.conftest import Farm
from tests.support.served import PublishCall, hear, wire

pytestmark = pytest.mark.e2e

ATTACK_S = 3.0
GROWTH_MIB_MAX = 250
HOSTILE = Path(hostile.__file__)


def resident_mib(pid: int) -> int:
    """The memory that the process has in RAM."""
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) // 1024


@pytest.mark.parametrize(
    "attack",
    ["bomb", "binary", "large", "reset", "streams", "continuation", "garbage", "halves"],
)
async def test_a_hostile_peer_costs_little_memory_and_good_clients_are_served(
    attack: str, farm: Farm
) -> None:
    broker = farm.broker()
    address = farm.broker_url.removeprefix("qbroker://")
    before_mib = resident_mib(broker.pid)
    attacker = await asyncio.create_subprocess_exec(
        sys.executable, str(HOSTILE), attack, address, str(ATTACK_S)
    )
    most_mib = confirmed = 0

    while attacker.returncode is None:
        # A newcomer each time.
        async with grpc.aio.insecure_channel(address) as channel:
            call: PublishCall = producer_pb2_grpc.ProducerStub(channel).Publish()
            messages = [wire(f"m{confirmed}")]
            await call.write(producer_pb2.PublishRequest(seq=1, messages=messages))
            reply = await hear(call)
            assert isinstance(reply, producer_pb2.PublishReply)
            assert not reply.refusals
            call.cancel()
        confirmed += 1
        most_mib = max(most_mib, resident_mib(broker.pid))
        await asyncio.sleep(0.02)

    assert confirmed > 10
    assert most_mib - before_mib < GROWTH_MIB_MAX
    assert broker.end() == 0
    assert sum(map(len, broker.lines)) < 10_000


async def test_connections_that_never_finish_their_handshake_are_closed(farm: Farm) -> None:
    broker = farm.broker()
    host, _, port = farm.broker_url.removeprefix("qbroker://").rpartition(":")
    peers = [await asyncio.open_connection(host, int(port)) for _ in hostile.BEGINNINGS]

    for (_, writer), beginning in zip(peers, hostile.BEGINNINGS, strict=True):
        writer.write(beginning)
    # The broker waits for five seconds; gRPC alone for two minutes.
    async with asyncio.timeout(60):
        for reader, _ in peers:
            while await reader.read(65_536):
                pass

    for _, writer in peers:
        writer.close()
    assert broker.end() == 0


async def test_a_client_of_grpcio_has_more_calls_than_streams_on_one_connection(farm: Farm) -> None:
    farm.broker()
    async with grpc.aio.insecure_channel(farm.broker_url.removeprefix("qbroker://")) as channel:
        stub = producer_pb2_grpc.ProducerStub(channel)
        # It knows of the bound only when the broker has told its settings.
        await channel.channel_ready()

        async def publish(number: int) -> bool:
            call: PublishCall = stub.Publish()
            messages = [wire(f"m{number}")]
            await call.write(producer_pb2.PublishRequest(seq=1, messages=messages))
            reply = await call.read()
            await call.done_writing()
            return isinstance(reply, producer_pb2.PublishReply) and not reply.refusals

        async with asyncio.timeout(60):
            stored = await asyncio.gather(*[publish(number) for number in range(300)])

    assert stored == [True] * 300
