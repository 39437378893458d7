"""The Results service."""

import json
from typing import Any

import grpc
import pytest

from qbroker_proto.v1 import message_pb2, results_pb2, worker_pb2
from qbroker_server.core import keys, limits
from qbroker_server.engines.memory import MemoryEngine
from qbroker_server.rpc import results as module
from qbroker_server.rpc.results import Results
from tests.support.served import hear, result, serving, wire


def damage(engine: MemoryEngine, key: bytes) -> None:
    """Flip a bit of what is stored at `key`."""
    txn = engine.begin(bytes_max=0)
    raw = bytearray(txn.get(key) or b"")
    raw[-1] ^= 1
    txn.put(key, bytes(raw))
    txn.commit()


async def test_an_id_is_answered_with_its_state_then_with_its_end() -> None:
    async with serving() as served:
        await served.publish(wire())
        watch = await served.watch().say(watch=["m1"])
        (before,) = await watch.hear()
        worker = served.work()
        await worker.register()
        (delivery,) = await worker.take()

        await worker.settle(delivery)

        (after,) = await watch.hear()
        assert (before.stage, before.state, before.is_final) == (
            results_pb2.STAGE_QUEUED,
            "PENDING",
            False,
        )
        assert (after.stage, after.state, after.is_final) == (
            results_pb2.STAGE_DONE,
            "SUCCESS",
            True,
        )
        assert after.end_reason == results_pb2.END_REASON_SETTLED
        assert message_pb2.Result.FromString(after.result).body == b"4"


async def test_who_wants_ends_alone_is_told_of_nothing_else() -> None:
    async with serving() as served:
        await served.publish(wire("ended"), wire("open", queue="other"))
        worker = served.work()
        await worker.register()
        (delivery,) = await worker.take()
        await worker.settle(delivery)
        watch = await served.watch().say(ends=["ended", "open", "unknown"])

        (first,) = await watch.hear()
        other = served.work()
        await other.register("other", queues=["other"])
        (delivery,) = await other.take()
        await other.settle(delivery)

        (second,) = await watch.hear()
        assert (first.id, first.is_final) == ("ended", True)
        assert (second.id, second.is_final) == ("open", True)


async def test_ends_that_are_not_there_are_answered_with_none() -> None:
    async with serving() as served:
        await served.publish(wire())

        watch = await served.watch().say(ends=["m1", "unknown"])

        assert await watch.hear() == []


async def test_who_wants_the_end_of_what_is_damaged_is_told() -> None:
    engine = MemoryEngine()
    async with serving(engine) as served:
        await served.publish(wire())
        damage(engine, keys.MESSAGE + b"m1")

        watch = await served.watch().say(ends=["m1"])

        (state,) = await watch.hear()
        assert (state.state, state.is_final) == ("FAILURE", True)


@pytest.mark.parametrize(
    ("fields", "stage"),
    [
        ({}, results_pb2.STAGE_QUEUED),
        ({"eta_ms": 2**61}, results_pb2.STAGE_SCHEDULED),
    ],
)
async def test_a_waiting_task_is_pending(fields: dict[str, Any], stage: results_pb2.Stage) -> None:
    async with serving() as served:
        await served.publish(wire(**fields))

        state = await served.state()

        assert (state.stage, state.state, state.attempt) == (stage, "PENDING", 0)


@pytest.mark.parametrize("odd", ["unknown", "", "\x00", "x" * 10_000])
async def test_an_unknown_id_is_pending_for_ever(odd: str) -> None:
    async with serving() as served:
        assert await served.state(odd) == results_pb2.TaskState(id=odd, state="PENDING")


@pytest.mark.parametrize(("is_tracked", "state"), [(True, "STARTED"), (False, "PENDING")])
async def test_a_running_task_shows_as_started_only_when_asked_to(
    is_tracked: bool, state: str
) -> None:
    async with serving() as served:
        await served.publish(wire(track_started=is_tracked))
        worker = served.work()
        await worker.register()
        await worker.take()

        starts = [worker_pb2.Start(id="m1", attempt=1, pid=7)]
        await worker.applied(await worker.say(starts=starts))

        told = await served.state()
        assert (told.stage, told.state) == (results_pb2.STAGE_STARTED, state)
        if is_tracked:
            result = message_pb2.Result.FromString(told.result)
            assert json.loads(result.body) == {"pid": 7, "hostname": "s1@host"}
        else:
            assert told.result == b""


async def test_an_id_that_comes_later_may_be_watched_before() -> None:
    async with serving() as served:
        worker, watch = served.work(), await served.watch().say(watch=["m1"])
        await worker.register()
        (unknown,) = await watch.hear()

        await served.publish(wire())
        (delivery,) = await worker.take()
        await worker.settle(delivery)

        assert unknown.stage == results_pb2.STAGE_UNKNOWN
        assert (await watch.hear())[0].is_final


async def test_many_ids_are_watched_at_once() -> None:
    async with serving() as served:
        ids = [f"m{n}" for n in range(2_000)]
        await served.publish(*map(wire, ids))
        worker, watch = served.work(), await served.watch().say(watch=ids)
        before = await watch.states(len(ids))
        await worker.register(prefetch_count=2_000)
        deliveries = await worker.take(len(ids))

        await worker.say(
            settles=[
                worker_pb2.Settle(id=d.id, attempt=1, outcome=worker_pb2.OUTCOME_SUCCESS)
                for d in deliveries
            ]
        )

        after = await watch.states(len(ids))
        assert {state.id for state in before} == {state.id for state in after} == set(ids)
        assert all(state.is_final for state in after)


async def test_what_is_unwatched_is_told_no_more() -> None:
    async with serving() as served:
        await served.publish(wire("a"), wire("b"))
        worker, watch = served.work(), await served.watch().say(watch=["a", "b"])
        await watch.states(2)
        await watch.say(unwatch=["a"], read=["b"])
        await watch.states(1)
        await worker.register()

        for delivery in await worker.take(2):
            await worker.settle(delivery)

        assert [state.id for state in await watch.hear()] == ["b"]


async def test_everybody_who_watches_is_told() -> None:
    async with serving() as served:
        await served.publish(wire())
        watches = [await served.watch().say(watch=["m1"]) for _ in range(5)]
        for watch in watches:
            await watch.states(1)
        worker = served.work()
        await worker.register()
        (delivery,) = await worker.take()
        watches[0].call.cancel()

        await worker.settle(delivery)

        for watch in watches[1:]:
            assert (await watch.hear())[0].is_final


async def test_large_results_come_in_replies_a_client_can_take() -> None:
    async with serving() as served:
        ids = [f"m{n}" for n in range(6)]
        await served.publish(*map(wire, ids))
        worker = served.work()
        await worker.register()
        for delivery in await worker.take(6):
            await worker.settle(delivery, body=result(body=b"x" * 4_000_000))

        watch = await served.watch().say(read=ids)
        sizes = [len(states) for states in [await watch.hear() for _ in range(3)]]

        assert sizes == [2, 2, 2]


async def test_a_forgotten_result_is_gone_and_its_id_is_not() -> None:
    async with serving() as served:
        await served.publish(wire())
        worker = served.work()
        await worker.register()
        (delivery,) = await worker.take()
        await worker.settle(delivery)

        reply = await served.results.Forget(
            results_pb2.ForgetRequest(ids=["m1", "m1", "unknown", "", "x" * 1_000])
        )

        assert reply.forgotten_count == 1
        state = await served.state()
        assert (state.state, state.result) == ("PENDING", b"")
        assert (await served.publish(wire())).duplicates == [0]


@pytest.mark.parametrize("family", [keys.MESSAGE, keys.PAYLOAD])
async def test_nobody_waits_for_a_damaged_task(family: bytes) -> None:
    engine = MemoryEngine()
    async with serving(engine) as served:
        await served.publish(wire())
        worker = served.work()
        await worker.register()
        (delivery,) = await worker.take()
        await worker.settle(delivery, body=b"x" * 3_000)
        with engine.read() as txn:
            ((key, _),) = txn.scan(family, keys.after(family), 1)
        damage(engine, key)

        state = await served.state()

        assert (state.state, state.is_final) == ("FAILURE", True)
        assert "checksum" in state.detail


async def test_a_client_that_does_not_read_costs_no_more_than_its_ids(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_WANTED_MAX", 10)
    async with serving() as served:
        watch = served.watch()

        for number in range(20):
            await watch.say(read=[f"{number}-{n}" for n in range(100)])

        assert len(await watch.states(2_000)) == 2_000


async def test_who_watches_too_much_is_told_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "WATCHED_MAX", 10)
    async with serving() as served:
        watch = served.watch()

        await watch.say(watch=[f"m{n}" for n in range(11)])

        assert await watch.call.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "one stream watches up to 10 messages" in await watch.call.details()
        assert await served.is_alive()


async def test_bytes_that_are_no_request_end_their_stream_and_no_other() -> None:
    async with serving() as served:
        other = served.watch()
        call = served.raw("/qbroker.v1.Results/Watch")

        await call.write(b"\xff\xff\xff")

        assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
        await other.say(read=["m1"])
        assert len(await other.states(1)) == 1


async def test_a_stream_cut_in_the_middle_leaves_nothing_behind() -> None:
    async with serving() as served:
        watch = await served.watch().say(watch=["m1", "m2"])
        await watch.states(2)

        watch.call.cancel()
        assert await served.is_alive()
        await served.stop()

        (servicer,) = (one for one in served.broker.listeners if isinstance(one, Results))
        assert servicer._watchers == {}


async def test_a_stopping_broker_says_why_it_ends() -> None:
    async with serving() as served:
        watch = await served.watch().say(watch=["m1"])
        await watch.states(1)

        await served.stop()

        assert await watch.call.code() == grpc.StatusCode.UNAVAILABLE
        assert await watch.call.details() == "the broker is shutting down"


async def test_a_client_that_has_said_all_hears_all_and_is_done() -> None:
    async with serving() as served:
        watch = await served.watch().say(read=["m1"])

        await watch.call.done_writing()

        assert len(await watch.states(1)) == 1
        assert await hear(watch.call) is grpc.aio.EOF


async def test_a_state_on_the_way_is_pushed_to_who_watches() -> None:
    async with serving() as served:
        await served.publish(wire())
        watch = await served.watch().say(watch=["m1"])
        await watch.hear()

        reply = await served.results.Tell(
            results_pb2.TellRequest(id="m1", state="PROGRESS", result=b"half")
        )

        (state,) = await watch.hear()
        assert reply.is_told
        assert (state.state, state.result, state.is_final) == ("PROGRESS", b"half", False)


async def test_a_state_without_a_name_is_refused() -> None:
    async with serving() as served:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await served.results.Tell(results_pb2.TellRequest(id="m1"))

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
