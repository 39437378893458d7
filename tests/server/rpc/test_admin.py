"""The Admin service."""

from qbroker_proto.v1 import admin_pb2, results_pb2
from qbroker_server.core import keys
from qbroker_server.engines.memory import MemoryEngine
from tests.support.served import serving, wire


async def test_status_tells_of_queues_workers_and_the_store() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register(queues=["a", "b"], prefetch_count=1)
        await served.publish(
            wire("1", queue="a"),
            wire("2", queue="a"),
            wire("3", queue="c"),
            wire("4", queue="a", eta_ms=2**61),
        )

        status = await served.status()

        assert status.engine == "memory"
        assert status.version
        assert status.started_ms > 1_600_000_000_000
        assert status.stored_bytes > 0
        assert status.scheduled_count == 1
        queues = {q.name: (q.ready_count, q.leased_count, q.consumer_count) for q in status.queues}
        assert queues == {"a": (1, 1, 1), "b": (0, 0, 1), "c": (1, 0, 0)}
        (told,) = status.workers
        assert (told.name, told.session_id, told.prefetch_count) == ("s1@host", "s1", 1)
        assert (told.leased_count, told.is_connected) == (1, True)
        assert list(told.queues) == ["a", "b"]


async def test_a_worker_whose_stream_broke_is_told_as_such() -> None:
    async with serving(grace_ms=60_000) as served:
        worker = served.work()
        await worker.register()
        worker.call.cancel()
        await served.publish(wire())

        (told,) = (await served.status()).workers

        assert not told.is_connected


async def test_purge_tells_how_many_messages_it_revoked() -> None:
    async with serving() as served:
        for part in range(5):
            await served.publish(*(wire(f"{part}-{n}") for n in range(1_000)))

        reply = await served.admin.PurgeQueue(admin_pb2.PurgeQueueRequest(queue="celery"))

        assert reply.purged_count == 5_000
        state = await served.state("0-0")
        assert (state.state, state.end_reason) == ("REVOKED", results_pb2.END_REASON_REVOKED)


async def test_purge_of_an_impossible_queue_finds_nothing() -> None:
    async with serving() as served:
        for name in ("", "\x00", "x" * 10_000, "é" * 400):
            reply = await served.admin.PurgeQueue(admin_pb2.PurgeQueueRequest(queue=name))
            assert reply.purged_count == 0
        assert await served.is_alive()


async def test_status_survives_a_damaged_count() -> None:
    engine = MemoryEngine()
    async with serving(engine) as served:
        await served.publish(wire())
        txn = engine.begin(bytes_max=0)
        txn.put(keys.QUEUE + b"celery", b"damaged")
        txn.commit()
        worker = served.work()
        await worker.register()
        await worker.take()

        (told,) = (await served.status()).queues

        assert (told.ready_count, told.leased_count) == (0, 1)
