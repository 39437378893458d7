"""The Periodic service: entries that publish a message again and again."""

from collections.abc import Awaitable, Callable
from functools import wraps
from typing import NoReturn, Protocol, TypeVar

import grpc

from qbroker_proto.v1 import message_pb2, periodic_pb2, periodic_pb2_grpc
from qbroker_server.broker import Broker
from qbroker_server.clock import Clock
from qbroker_server.core import periodic
from qbroker_server.core.errors import CoreError
from qbroker_server.core.periodic import Almanac, Definition, Entry
from qbroker_server.pump import Pump
from qbroker_server.rpc import status

A = TypeVar("A")
Q = TypeVar("Q")

_TICKS_MAX = 1_000


class _Context(Protocol):
    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...


def _refusing(
    method: Callable[["Periodic", Q], Awaitable[A]],
) -> Callable[["Periodic", Q, _Context], Awaitable[A]]:
    """Have the core's refusals end the call with their status."""

    @wraps(method)
    async def call(self: "Periodic", request: Q, context: _Context) -> A:
        try:
            return await method(self, request)
        except CoreError as error:
            return await context.abort(status.status_of(error), status.details_of(error))

    return call


class Periodic(periodic_pb2_grpc.PeriodicServicer):
    """Each request becomes a command or a look."""

    def __init__(self, broker: Broker, pump: Pump, clock: Clock, almanac: Almanac) -> None:
        self._broker = broker
        self._pump = pump
        self._clock = clock
        self._almanac = almanac

    @_refusing
    async def ListSchedules(
        self, request: periodic_pb2.ListSchedulesRequest
    ) -> periodic_pb2.ListSchedulesReply:
        if request.name:
            return periodic_pb2.ListSchedulesReply(schedules=[self._info(request.name)])
        limit = min(request.limit or periodic.PAGE_MAX, periodic.PAGE_MAX)
        found = self._broker.read(lambda txn: periodic.page(txn, request.after, limit))
        return periodic_pb2.ListSchedulesReply(
            schedules=[_info(name, entry) for name, entry in found],
            next=found[-1][0] if len(found) == limit else "",
        )

    @_refusing
    async def PutSchedule(
        self, request: periodic_pb2.PutScheduleRequest
    ) -> periodic_pb2.ScheduleInfo:
        name, definition = request.schedule.name, _definition(request.schedule)
        entry = await self._pump.ask(
            periodic.Put(name, definition, self._almanac, is_new=request.is_new)
        )
        dropped_count = await self._drop(request.with_waiting, name, until_ms=entry.changed_ms)
        return _info(name, entry, dropped_count)

    @_refusing
    async def DeclareSchedules(
        self, request: periodic_pb2.DeclareSchedulesRequest
    ) -> periodic_pb2.DeclareSchedulesReply:
        entries = tuple([(one.name, _definition(one)) for one in request.schedules])
        declared = await self._pump.ask(
            periodic.Declare(request.owner, entries, self._almanac, is_dry=request.dry_run)
        )
        drops = request.with_waiting and not request.dry_run
        return periodic_pb2.DeclareSchedulesReply(
            dropped_count=await self._drop(drops, *declared.changed, *declared.removed),
            added=declared.added,
            changed=declared.changed,
            removed=declared.removed,
            unchanged=declared.unchanged,
            taken=[
                periodic_pb2.TakenSchedule(name=name, owner=owner) for name, owner in declared.taken
            ],
        )

    @_refusing
    async def RemoveSchedule(
        self, request: periodic_pb2.RemoveScheduleRequest
    ) -> periodic_pb2.RemoveScheduleReply:
        await self._pump.ask(periodic.Remove(request.name))
        dropped_count = await self._drop(request.with_waiting, request.name)
        return periodic_pb2.RemoveScheduleReply(dropped_count=dropped_count)

    @_refusing
    async def PauseSchedule(
        self, request: periodic_pb2.PauseScheduleRequest
    ) -> periodic_pb2.ScheduleInfo:
        entry = await self._pump.ask(periodic.Pause(request.name, request.by, request.why))
        dropped_count = await self._drop(request.with_waiting, request.name)
        return _info(request.name, entry, dropped_count)

    @_refusing
    async def ResumeSchedule(
        self, request: periodic_pb2.ResumeScheduleRequest
    ) -> periodic_pb2.ScheduleInfo:
        entry = await self._pump.ask(periodic.Resume(request.name, self._almanac))
        return _info(request.name, entry)

    @_refusing
    async def RunSchedule(
        self, request: periodic_pb2.RunScheduleRequest
    ) -> periodic_pb2.RunScheduleReply:
        message_id = await self._pump.ask(periodic.Run(request.name, request.id, self._almanac))
        return periodic_pb2.RunScheduleReply(id=message_id)

    @_refusing
    async def NextTicks(
        self, request: periodic_pb2.NextTicksRequest
    ) -> periodic_pb2.NextTicksReply:
        now_ms = self._clock.now_ms()
        timing, anchor_ms, tick_ms, end_ms = request.timing, now_ms, now_ms, 0
        if request.name:
            entry = self._broker.read(lambda txn: periodic.peek(txn, request.name))
            definition = entry.definition
            timing, anchor_ms, end_ms = definition.timing, entry.anchor_ms, definition.end_ms
            tick_ms = max(now_ms, definition.start_ms - 1)
        reply = periodic_pb2.NextTicksReply()
        for _ in range(min(request.count or 1, _TICKS_MAX)):
            found = self._almanac.next_ms(timing, tick_ms, anchor_ms)
            if found is None or 0 < end_ms < found:
                break
            reply.ticks_ms.append(found)
            tick_ms = found
        return reply

    async def _drop(self, is_wanted: bool, *names: str, until_ms: int = 0) -> int:  # noqa: FBT001 - a field of the request
        """Revoke what waits of these entries, a step's worth at a time; how many messages."""
        dropped_count = 0
        until_ms = until_ms or self._clock.now_ms()
        for name in names if is_wanted else ():
            after_id = ""
            while True:
                count, after_id = await self._pump.ask(periodic.Drop(name, until_ms, after_id))
                dropped_count += count
                if not after_id:
                    break
        return dropped_count

    def _info(self, name: str) -> periodic_pb2.ScheduleInfo:
        return _info(name, self._broker.read(lambda txn: periodic.peek(txn, name)))


def _definition(wire: periodic_pb2.Schedule) -> Definition:
    default = Definition("", b"")
    return Definition(
        timing=wire.timing,
        template=wire.message,
        overlap=wire.overlap or default.overlap,
        catch_up=wire.catch_up or default.catch_up,
        catch_up_max=wire.catch_up_max or default.catch_up_max,
        late_ms_max=wire.late_ms_max,
        jitter_ms=wire.jitter_ms,
        delay_ms=wire.delay_ms,
        lifetime_ms=wire.lifetime_ms,
        start_ms=wire.start_ms,
        end_ms=wire.end_ms,
        runs_max=wire.runs_max,
    )


def _info(name: str, entry: Entry, dropped_count: int = 0) -> periodic_pb2.ScheduleInfo:
    definition = entry.definition
    # What was stored was checked: it is a message.
    message = message_pb2.Message.FromString(definition.template)
    return periodic_pb2.ScheduleInfo(
        schedule=periodic_pb2.Schedule(
            name=name,
            timing=definition.timing,
            message=definition.template,
            overlap=definition.overlap,
            catch_up=definition.catch_up,
            catch_up_max=definition.catch_up_max,
            late_ms_max=definition.late_ms_max,
            jitter_ms=definition.jitter_ms,
            delay_ms=definition.delay_ms,
            lifetime_ms=definition.lifetime_ms,
            start_ms=definition.start_ms,
            end_ms=definition.end_ms,
            runs_max=definition.runs_max,
        ),
        task=message.task,
        queue=message.queue,
        argsrepr=message.argsrepr,
        kwargsrepr=message.kwargsrepr,
        next_ms=0 if entry.paused_ms else entry.next_ms,
        last_ms=entry.last_ms,
        last_id=entry.last_id,
        run_count=entry.run_count,
        skipped_count=entry.skipped_count,
        note=entry.note,
        paused_ms=entry.paused_ms,
        paused_by=entry.paused_by,
        paused_why=entry.paused_why,
        owner=entry.owner,
        changed_ms=entry.changed_ms,
        dropped_count=dropped_count,
    )
