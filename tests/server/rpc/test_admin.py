"""The Admin service."""

import grpc
import pytest

from qbroker_proto.v1 import admin_pb2, producer_pb2, results_pb2
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


def topology() -> admin_pb2.Topology:
    """An exchange of each kind that passes to a queue."""
    return admin_pb2.Topology(
        exchanges=[
            admin_pb2.Exchange(name="media", type="topic", alternate="lost"),
            admin_pb2.Exchange(name="by-header", type="headers"),
        ],
        queues=[
            admin_pb2.QueueDeclaration(name="images", options=admin_pb2.QueueOptions(length_max=2))
        ],
        bindings=[
            admin_pb2.Binding(exchange="media", destination="images", routing_key="image.#"),
            admin_pb2.Binding(
                exchange="by-header",
                destination="pdf",
                arguments='{"kind": "pdf", "x-match": "all"}',
            ),
        ],
    )


async def test_a_topology_is_declared_and_listed() -> None:
    async with serving() as served:
        await served.admin.DeclareTopology(topology())

        listed = await served.admin.ListTopology(admin_pb2.ListTopologyRequest())

        exchanges = {one.name: (one.type, one.alternate) for one in listed.exchanges}
        assert exchanges["media"] == ("topic", "lost")
        assert exchanges["amq.fanout"] == ("fanout", "")
        assert [(one.exchange, one.destination, one.routing_key) for one in listed.bindings] == [
            ("by-header", "pdf", ""),
            ("media", "images", "image.#"),
        ]
        queues = await served.admin.ListQueues(admin_pb2.ListQueuesRequest(queue="images"))
        assert queues.queues[0].options.length_max == 2


async def test_a_message_finds_its_queue_by_key_and_by_headers() -> None:
    async with serving() as served:
        await served.admin.DeclareTopology(topology())

        reply = await served.publish(
            wire("1", exchange="media", routing_key="image.crop"),
            wire("2", exchange="by-header", headers='{"kind": "pdf"}'),
            wire("3", exchange="by-header", headers='{"kind": "txt"}'),
            wire("4", exchange="by-header", headers="[1]"),
        )

        codes = {one.index: one.code for one in reply.refusals}
        assert codes == {
            2: producer_pb2.REFUSAL_CODE_UNROUTABLE,
            3: producer_pb2.REFUSAL_CODE_INVALID,
        }
        shown = [
            (await served.admin.ShowTask(admin_pb2.ShowTaskRequest(id=one))).queue
            for one in ("1", "2")
        ]
        assert shown == ["images", "pdf"]


async def test_a_route_is_tested_without_sending_anything() -> None:
    async with serving() as served:
        await served.admin.DeclareTopology(topology())

        async def queues(exchange: str, key: str, headers: str = "") -> list[str]:
            request = admin_pb2.TestRouteRequest(
                exchange=exchange, routing_key=key, headers=headers
            )
            return list((await served.admin.TestRoute(request)).queues)

        assert await queues("media", "image.a.b") == ["images"]
        assert await queues("media", "video") == []
        assert await queues("by-header", "", '{"kind": "pdf"}') == ["pdf"]
        assert await queues("", "anything") == ["anything"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await queues("absent", "x")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_exchanges_and_bindings_are_removed() -> None:
    async with serving() as served:
        await served.admin.DeclareTopology(topology())
        (first, second) = topology().bindings

        await served.admin.RemoveBinding(second)
        await served.admin.RemoveExchange(admin_pb2.RemoveExchangeRequest(exchange="media"))

        listed = await served.admin.ListTopology(admin_pb2.ListTopologyRequest())
        assert not listed.bindings
        assert "media" not in [one.name for one in listed.exchanges]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.admin.RemoveBinding(first)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_topology_that_contradicts_what_is_there_is_refused() -> None:
    async with serving() as served:
        await served.admin.DeclareTopology(topology())
        other = admin_pb2.Topology(exchanges=[admin_pb2.Exchange(name="media", type="direct")])

        with pytest.raises(grpc.aio.AioRpcError, match="type is 'topic', not 'direct'") as caught:
            await served.admin.DeclareTopology(other)

        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


async def test_a_worker_declares_what_its_queues_need_when_it_registers() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register(queues=["images"], topology=topology())
        await served.publish(wire("1", exchange="media", routing_key="image.crop"))

        (delivery,) = await worker.take()

        assert (delivery.id, delivery.queue) == ("1", "images")
