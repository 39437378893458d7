"""A small disk of its own, filled by the broker and by another program."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from qbroker_proto.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    producer_pb2,
    producer_pb2_grpc,
    worker_pb2_grpc,
)
from tests.e2e.conftest import Farm, Process
from tests.support.served import OPTIONS, PublishCall, Worker, hear, wire

pytestmark = pytest.mark.e2e

DISK_BYTES = 32 * 1024 * 1024
RESERVE_BYTES = 4 * 1024 * 1024
FULL = producer_pb2.REFUSAL_CODE_RESOURCE_EXHAUSTED


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 32 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = [
        shutil.which("mount") or "",
        "-t",
        "tmpfs",
        "-o",
        f"size={DISK_BYTES}",
        "tmpfs",
        str(folder),
    ]
    if not mount[0]:
        pytest.skip("this system has no mount command, so there is no small disk to fill")
    made = subprocess.run(mount, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {made.stderr.strip()}")
    yield folder
    subprocess.run([shutil.which("umount") or "", "-l", str(folder)], check=True)


def serve(farm: Farm, disk: Path) -> tuple[Process, str]:
    """A broker with its data on the small disk, and its address."""
    arguments = ("--data-dir", str(disk / "data"), "--listen", "127.0.0.1:0")
    process = farm.start("serve", *arguments, QBROKER_RESERVE_BYTES=str(RESERVE_BYTES))
    return process, process.wait_for(r"listens on (127\.0\.0\.1:\d+)").group(1)


async def publish(channel: grpc.aio.Channel, name: str, size: int, batches: int) -> list[str]:
    """Publish batches of ten until one is refused; the ids of what was stored."""
    call: PublishCall = producer_pb2_grpc.ProducerStub(channel).Publish()
    stored: list[str] = []
    for number in range(batches):
        ids = [f"{name}-{number}-{place}" for place in range(10)]
        messages = [wire(one, body=os.urandom(size)) for one in ids]
        await call.write(producer_pb2.PublishRequest(seq=number + 1, messages=messages))
        reply = await hear(call)
        assert isinstance(reply, producer_pb2.PublishReply)
        assert {refusal.code for refusal in reply.refusals} <= {FULL}
        assert all(refusal.retry_after_ms for refusal in reply.refusals)
        refused = {refusal.index for refusal in reply.refusals}
        stored += [one for place, one in enumerate(ids) if place not in refused]
        if refused:
            break
    call.cancel()
    return stored


def fill(path: Path) -> None:
    """Take the disk's last byte, as another program would."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 65_536)
        except OSError:
            return


async def settle(channel: grpc.aio.Channel, count: int) -> int:
    """Settle so many messages with a result each; how many counted."""
    worker = Worker(worker_pb2_grpc.WorkerStub(channel).Work())
    await worker.register(prefetch_count=10)
    settled = 0
    while settled < count:
        for delivery in await worker.take():
            settled += not await worker.settle(delivery, body=os.urandom(1_500))
    await worker.say(leave=True)
    worker.call.cancel()
    return settled


async def test_publishing_alone_never_uses_up_the_reserve_of_a_fragmented_disk(
    farm: Farm, disk: Path
) -> None:
    broker, address = serve(farm, disk)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        small = await publish(channel, "small", 3_000, 10_000)
        revoke = admin_pb2.RevokeRequest(ids=small[::2])
        await admin_pb2_grpc.AdminStub(channel).Revoke(revoke)

        large = await publish(channel, "large", 15_500, 10_000)
        for attempt in range(20):
            large += await publish(channel, f"again{attempt}", 15_500, 3)

        file = (disk / "data" / "data.mdb").stat()
        assert len(small) > 1_000
        assert large
        # Some of the reserve is now inside the file, as free pages; the rest is still behind it.
        assert file.st_blocks * 512 > file.st_size
        assert broker.popen.poll() is None
        assert await settle(channel, 200) >= 200
        purge = admin_pb2.PurgeQueueRequest(queue="celery")
        assert (await admin_pb2_grpc.AdminStub(channel).PurgeQueue(purge)).purged_count > 0
        assert len(await publish(channel, "after", 3_000, 10)) == 100


async def test_another_program_that_fills_the_disk_stops_publishes_and_nothing_else(
    farm: Farm, disk: Path
) -> None:
    broker, address = serve(farm, disk)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        assert len(await publish(channel, "before", 3_000, 100)) == 1_000
        fill(disk / "foreign")

        # What was free inside the file at that moment may still be used.
        await publish(channel, "meanwhile", 3_000, 10_000)
        refused = await publish(channel, "refused", 3_000, 1)
        settled = await settle(channel, 200)

        assert len(refused) < 10
        assert settled >= 200
        assert broker.popen.poll() is None
    assert await asyncio.to_thread(broker.end) == 0

    broker, address = serve(farm, disk)
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        assert await settle(channel, 100) >= 100
        (disk / "foreign").unlink()
        async with asyncio.timeout(30):
            number = 0
            while len(await publish(channel, f"later{number}", 3_000, 1)) < 10:
                number += 1
                await asyncio.sleep(0.2)


async def test_a_disk_that_is_full_before_the_first_start_is_told_in_a_sentence(
    farm: Farm, disk: Path
) -> None:
    (disk / "data").mkdir()
    fill(disk / "foreign")

    broker = farm.start("serve", "--data-dir", str(disk / "data"), "--listen", "127.0.0.1:0")

    await asyncio.to_thread(broker.wait_for, r"^qbroker serve: .*No space left on device.*\.$")
    assert await asyncio.to_thread(broker.popen_wait, 30) in (69, 74)
    assert not any("Traceback" in line for line in broker.lines)
