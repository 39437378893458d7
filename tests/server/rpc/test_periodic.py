"""The Periodic service."""

from collections.abc import Awaitable, Callable

import grpc
import pytest

from qbroker_proto.v1 import periodic_pb2, periodic_pb2_grpc
from qbroker_server.core import keys
from tests.support.served import WAIT_S, Served, serving, wire


def stub(served: Served) -> "periodic_pb2_grpc.PeriodicAsyncStub":
    return periodic_pb2_grpc.PeriodicStub(served.channel)


def schedule(
    name: str = "tidy", timing: str = "every 3600", **fields: object
) -> periodic_pb2.Schedule:
    return periodic_pb2.Schedule(
        name=name,
        timing=timing,
        message=wire("", argsrepr="(2,)"),
        **fields,  # type: ignore[arg-type] # as given
    )


async def put(
    served: Served, one: periodic_pb2.Schedule, *, is_new: bool = False
) -> periodic_pb2.ScheduleInfo:
    request = periodic_pb2.PutScheduleRequest(schedule=one, is_new=is_new)
    return await stub(served).PutSchedule(request, timeout=WAIT_S)


async def test_an_entry_fires_without_anybody_but_the_broker() -> None:
    async with serving() as served:
        worker = served.work()
        await worker.register()

        info = await put(served, schedule(timing="every 0.05"))
        deliveries = await worker.take()

        assert info.next_ms > 0
        (delivery,) = deliveries[:1]
        listed = await stub(served).ListSchedules(
            periodic_pb2.ListSchedulesRequest(), timeout=WAIT_S
        )
        (found,) = listed.schedules
        assert (found.schedule.name, found.task, found.argsrepr) == ("tidy", "proj.add", "(2,)")
        assert found.run_count >= 1
        assert delivery.task == "proj.add"


async def test_what_was_put_is_shown_with_its_defaults() -> None:
    async with serving() as served:
        await put(served, schedule(overlap="skip", jitter_ms=7, runs_max=3))

        request = periodic_pb2.ListSchedulesRequest(name="tidy")
        (info,) = (await stub(served).ListSchedules(request, timeout=WAIT_S)).schedules

        one = info.schedule
        assert (one.timing, one.overlap, one.catch_up) == ("every 3600", "skip", "last")
        assert (one.catch_up_max, one.jitter_ms, one.runs_max) == (100, 7, 3)


async def test_entries_are_declared_paused_run_and_removed() -> None:
    async with serving() as served:
        schedules = stub(served)
        request = periodic_pb2.DeclareSchedulesRequest(owner="proj", schedules=[schedule()])
        first = await schedules.DeclareSchedules(request, timeout=WAIT_S)
        second = await schedules.DeclareSchedules(request, timeout=WAIT_S)
        assert (list(first.added), list(second.unchanged)) == (["tidy"], ["tidy"])

        pause = periodic_pb2.PauseScheduleRequest(name="tidy", by="ann", why="INC-1")
        paused = await schedules.PauseSchedule(pause, timeout=WAIT_S)
        assert (paused.paused_by, paused.paused_why, paused.next_ms) == ("ann", "INC-1", 0)
        run = periodic_pb2.RunScheduleRequest(name="tidy", id="by-hand")
        assert (await schedules.RunSchedule(run, timeout=WAIT_S)).id == "by-hand"
        assert (await served.state("by-hand")).state == "PENDING"
        resume = periodic_pb2.ResumeScheduleRequest(name="tidy")
        assert (await schedules.ResumeSchedule(resume, timeout=WAIT_S)).next_ms > 0

        await schedules.RemoveSchedule(
            periodic_pb2.RemoveScheduleRequest(name="tidy"), timeout=WAIT_S
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await schedules.ResumeSchedule(resume, timeout=WAIT_S)
        assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_next_tells_the_ticks_of_an_entry_and_of_a_timing() -> None:
    async with serving() as served:
        await put(served, schedule(timing="every 10"))

        by_name = await stub(served).NextTicks(
            periodic_pb2.NextTicksRequest(name="tidy", count=3), timeout=WAIT_S
        )
        by_timing = await stub(served).NextTicks(
            periodic_pb2.NextTicksRequest(timing="cron 0 0 * * *", count=2), timeout=WAIT_S
        )

        first, second, third = by_name.ticks_ms
        assert (second - first, third - second) == (10_000, 10_000)
        assert by_timing.ticks_ms[1] - by_timing.ticks_ms[0] == 86_400_000


async def test_entries_are_listed_in_pages() -> None:
    async with serving() as served:
        for name in "abc":
            await put(served, schedule(name))

        first = await stub(served).ListSchedules(
            periodic_pb2.ListSchedulesRequest(limit=2), timeout=WAIT_S
        )
        rest = await stub(served).ListSchedules(
            periodic_pb2.ListSchedulesRequest(limit=2, after=first.next), timeout=WAIT_S
        )

        assert [info.schedule.name for info in [*first.schedules, *rest.schedules]] == list("abc")
        assert (first.next, rest.next) == ("b", "")


@pytest.mark.parametrize(
    ("one", "is_new", "code"),
    [
        (schedule(timing="never"), False, grpc.StatusCode.INVALID_ARGUMENT),
        (schedule(overlap="maybe"), False, grpc.StatusCode.INVALID_ARGUMENT),
        (schedule(), True, grpc.StatusCode.FAILED_PRECONDITION),
    ],
    ids=["timing", "overlap", "name"],
)
async def test_what_cannot_be_is_refused(
    one: periodic_pb2.Schedule, is_new: bool, code: grpc.StatusCode
) -> None:
    async with serving() as served:
        await put(served, schedule())

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await put(served, one, is_new=is_new)

        assert refused.value.code() == code
        with served.broker.engine.read() as txn:
            assert len(txn.scan(keys.ENTRY, keys.after(keys.ENTRY), 10)) == 1


async def _change(served: Served, *, with_waiting: bool) -> int:
    changed = schedule(timing="every 7200", delay_ms=60_000)
    request = periodic_pb2.PutScheduleRequest(schedule=changed, with_waiting=with_waiting)
    return (await stub(served).PutSchedule(request, timeout=WAIT_S)).dropped_count


async def _pause(served: Served, *, with_waiting: bool) -> int:
    request = periodic_pb2.PauseScheduleRequest(name="tidy", with_waiting=with_waiting)
    return (await stub(served).PauseSchedule(request, timeout=WAIT_S)).dropped_count


async def _remove(served: Served, *, with_waiting: bool) -> int:
    request = periodic_pb2.RemoveScheduleRequest(name="tidy", with_waiting=with_waiting)
    return (await stub(served).RemoveSchedule(request, timeout=WAIT_S)).dropped_count


async def _declare_none(served: Served, *, with_waiting: bool) -> int:
    request = periodic_pb2.DeclareSchedulesRequest(owner="proj", with_waiting=with_waiting)
    return (await stub(served).DeclareSchedules(request, timeout=WAIT_S)).dropped_count


async def _declare_another(served: Served, *, with_waiting: bool) -> int:
    request = periodic_pb2.DeclareSchedulesRequest(
        owner="proj", schedules=[schedule(timing="every 7200")], with_waiting=with_waiting
    )
    return (await stub(served).DeclareSchedules(request, timeout=WAIT_S)).dropped_count


@pytest.mark.parametrize("with_waiting", [False, True])
@pytest.mark.parametrize("alter", [_change, _pause, _remove, _declare_none, _declare_another])
async def test_delayed_messages_of_an_entry_stay_unless_they_are_to_be_dropped(
    alter: Callable[..., Awaitable[int]], with_waiting: bool
) -> None:
    async with serving() as served:
        declare = periodic_pb2.DeclareSchedulesRequest(
            owner="proj", schedules=[schedule(delay_ms=60_000)]
        )
        await stub(served).DeclareSchedules(declare, timeout=WAIT_S)
        await served.publish(wire("delayed", labels=["schedule=tidy"]), wire("stranger"))

        dropped_count = await alter(served, with_waiting=with_waiting)

        assert dropped_count == int(with_waiting)
        assert (await served.state("delayed")).state == ("REVOKED" if with_waiting else "PENDING")
        assert (await served.state("stranger")).state == "PENDING"


async def test_a_dry_declaration_drops_nothing() -> None:
    async with serving() as served:
        declare = periodic_pb2.DeclareSchedulesRequest(owner="proj", schedules=[schedule()])
        await stub(served).DeclareSchedules(declare, timeout=WAIT_S)
        await served.publish(wire("delayed", labels=["schedule=tidy"]))
        request = periodic_pb2.DeclareSchedulesRequest(
            owner="proj", dry_run=True, with_waiting=True
        )

        reply = await stub(served).DeclareSchedules(request, timeout=WAIT_S)

        assert (list(reply.removed), reply.dropped_count) == (["tidy"], 0)
        assert (await served.state("delayed")).state == "PENDING"
