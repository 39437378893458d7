"""The Admin service: what operators look at and change, answered from the store and the dispatcher."""

from collections.abc import Callable, Iterable
from typing import TypeVar

from qbroker_proto.v1 import admin_pb2, admin_pb2_grpc
from qbroker_server.broker import Broker
from qbroker_server.clock import Clock
from qbroker_server.core import (
    dead,
    index,
    limits,
    message,
    payloads,
    queue,
    routing,
    schedule,
    view,
)
from qbroker_server.core.errors import Invalid, NotFound
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.records import Flag, Stage
from qbroker_server.core.revoke import Revoke, RevokeIndexed
from qbroker_server.core.routes import BUILT_IN, Route, Table
from qbroker_server.pump import Pump
from qbroker_server.rates import Rates
from qbroker_server.rpc import convert, tasks
from qbroker_server.rpc.status import refusing
from qbroker_server.rpc.work import Worker

Q = TypeVar("Q")


class Admin(admin_pb2_grpc.AdminServicer):
    """Answers from the store and the dispatcher, never from a worker."""

    def __init__(
        self,
        broker: Broker,
        pump: Pump,
        worker: Worker,
        rates: Rates,
        clock: Clock,
        *,
        version: str,
    ) -> None:
        self._broker = broker
        self._pump = pump
        self._worker = worker
        self._rates = rates
        self._clock = clock
        self._version = version
        self._started_ms = clock.now_ms()

    # -- the broker --------------------------------------------------------------------------------

    @refusing
    async def Status(self, request: admin_pb2.StatusRequest) -> admin_pb2.StatusReply:
        del request
        reply = admin_pb2.StatusReply(
            version=self._version,
            started_ms=self._started_ms,
            engine=self._broker.engine.name,
            stored_bytes=self._broker.engine.stored_bytes(),
        )
        dispatcher = self._broker.dispatcher
        with self._broker.engine.read() as txn:
            reply.dead_count = len(dead.find(txn, None, limits.STEP_ITEMS_MAX))
            for name in queue.names(txn):
                counts = queue.counts(txn, name)
                reply.scheduled_count += max(0, counts.scheduled_count)
                reply.queues.add(
                    name=name,
                    # Below 0 only when a damaged record had to begin anew.
                    ready_count=max(0, counts.ready_count),
                    leased_count=max(0, counts.leased_count),
                    consumer_count=len(dispatcher.consumers(name)),
                    is_paused=bool(counts.options.paused_ms),
                )
        for session_id, register in self._worker.registrations.items():
            session = dispatcher.sessions.get(session_id)
            if session is None:
                continue
            reply.workers.add(
                name=register.name,
                session_id=session_id,
                hostname=register.hostname,
                pid=register.pid,
                pool=register.pool,
                concurrency=register.concurrency,
                prefetch_count=session.prefetch_count,
                leased_count=session.leased_count,
                is_connected=session.is_connected,
                queues=session.queues,
                version=register.version,
                is_draining=session.is_draining,
            )
        return reply

    # -- queues ------------------------------------------------------------------------------------

    @refusing
    async def ListQueues(self, request: admin_pb2.ListQueuesRequest) -> admin_pb2.ListQueuesReply:
        with self._broker.engine.read() as txn:
            names = queue.names(txn)
            if request.queue:
                if request.queue not in names:
                    raise NotFound(f"there is no queue {request.queue!r}")
                names = [request.queue]
            return admin_pb2.ListQueuesReply(queues=[self._queue_info(txn, name) for name in names])

    @refusing
    async def DeclareQueue(self, request: admin_pb2.DeclareQueueRequest) -> admin_pb2.QueueInfo:
        options = convert.queue_options(request.options)
        await self._pump.ask(queue.Declare(request.queue, options, request.is_new))
        return self._broker.read(lambda txn: self._queue_info(txn, request.queue))

    @refusing
    async def PauseQueue(self, request: admin_pb2.PauseQueueRequest) -> admin_pb2.QueueInfo:
        await self._pump.ask(queue.Pause(request.queue, request.by, request.why))
        return self._broker.read(lambda txn: self._queue_info(txn, request.queue))

    @refusing
    async def ResumeQueue(self, request: admin_pb2.ResumeQueueRequest) -> admin_pb2.QueueInfo:
        await self._pump.ask(queue.Resume(request.queue))
        return self._broker.read(lambda txn: self._queue_info(txn, request.queue))

    @refusing
    async def PurgeQueue(self, request: admin_pb2.PurgeQueueRequest) -> admin_pb2.PurgeQueueReply:
        purged_count = 0
        while True:
            count = await self._pump.ask(queue.Purge(request.queue))
            purged_count += count
            if count < limits.STEP_ITEMS_MAX:
                return admin_pb2.PurgeQueueReply(purged_count=purged_count)

    @refusing
    async def MoveQueue(self, request: admin_pb2.MoveQueueRequest) -> admin_pb2.MoveQueueReply:
        moved_count = 0
        while True:
            count = await self._pump.ask(queue.Move(request.source, request.target))
            moved_count += count
            if count < limits.STEP_ITEMS_MAX:
                return admin_pb2.MoveQueueReply(moved_count=moved_count)

    @refusing
    async def RemoveQueue(
        self, request: admin_pb2.RemoveQueueRequest
    ) -> admin_pb2.RemoveQueueReply:
        await self._pump.ask(queue.Remove(request.queue))
        return admin_pb2.RemoveQueueReply()

    def _queue_info(self, txn: ReadTxn, name: str) -> admin_pb2.QueueInfo:
        counts = queue.counts(txn, name)
        options = counts.options
        in_rate, out_rate = self._rates.of(name)
        return admin_pb2.QueueInfo(
            name=name,
            ready_count=counts.ready_count,
            leased_count=counts.leased_count,
            scheduled_count=counts.scheduled_count,
            ready_bytes=counts.ready_bytes,
            consumer_count=len(self._broker.dispatcher.consumers(name)),
            oldest_ms=queue.oldest_ms(txn, name),
            in_rate=in_rate,
            out_rate=out_rate,
            options=admin_pb2.QueueOptions(
                length_max=options.length_max,
                bytes_max=options.bytes_max,
                overflow=options.overflow,
                message_ttl_ms=options.message_ttl_ms,
                max_deliveries=options.deaths_max,
                expires_ms=options.expires_ms,
                ageing_ms=options.ageing_ms,
            ),
            paused_ms=options.paused_ms,
            paused_by=options.paused_by,
            paused_why=options.paused_why,
            unknown_count=self._broker.dispatcher.unknown_count(txn, name),
        )

    # -- routes ------------------------------------------------------------------------------------

    @refusing
    async def DeclareTopology(self, request: admin_pb2.Topology) -> admin_pb2.DeclareReply:
        await self._pump.ask(convert.declaration(request))
        return admin_pb2.DeclareReply()

    @refusing
    async def ListTopology(self, request: admin_pb2.ListTopologyRequest) -> admin_pb2.Topology:
        del request
        reply = admin_pb2.Topology()
        # A table of its own: the broker's belongs to the thread that writes.
        table = Table()
        with self._broker.engine.read() as txn:
            exchanges = {**BUILT_IN, **table.exchanges(txn)}
            bindings = table.bindings(txn).values()
        reply.exchanges.extend(convert.wire_exchange(exchanges[name]) for name in sorted(exchanges))
        reply.bindings.extend(
            convert.wire_binding(one)
            for one in sorted(
                bindings, key=lambda one: (one.exchange, one.routing_key, one.destination)
            )
        )
        return reply

    @refusing
    async def RemoveExchange(
        self, request: admin_pb2.RemoveExchangeRequest
    ) -> admin_pb2.RemoveExchangeReply:
        await self._pump.ask(routing.RemoveExchange(request.exchange))
        return admin_pb2.RemoveExchangeReply()

    @refusing
    async def RemoveBinding(self, request: admin_pb2.Binding) -> admin_pb2.RemoveBindingReply:
        await self._pump.ask(routing.Unbind(convert.binding(request)))
        return admin_pb2.RemoveBindingReply()

    @refusing
    async def TestRoute(self, request: admin_pb2.TestRouteRequest) -> admin_pb2.TestRouteReply:
        route = Route(
            request.exchange,
            request.routing_key,
            convert.parse_object("headers", request.headers),
        )
        with self._broker.engine.read() as txn:
            table = Table()
            if request.exchange and table.exchange(txn, request.exchange) is None:
                raise NotFound(f"there is no exchange {request.exchange!r}")
            return admin_pb2.TestRouteReply(queues=table.queues(txn, route))

    # -- tasks -------------------------------------------------------------------------------------

    @refusing
    async def ListTasks(self, request: admin_pb2.ListTasksRequest) -> admin_pb2.ListTasksReply:
        now_ms = self._clock.now_ms()
        wanted = view.Filter(
            queue=request.queue,
            task=request.task,
            stages=frozenset(map(convert.stage, request.stages)),
            label=request.label,
            published_ms_min=now_ms - request.age_ms_max if request.age_ms_max else 0,
            published_ms_max=now_ms - request.age_ms_min if request.age_ms_min else 2**62,
        )
        with self._broker.engine.read() as txn:
            found, after = view.page(txn, wanted, request.after, request.limit or 100)
        return admin_pb2.ListTasksReply(
            tasks=[tasks.info(self._worker, message_id, record) for message_id, record in found],
            next=after,
        )

    @refusing
    async def ShowTask(self, request: admin_pb2.ShowTaskRequest) -> admin_pb2.TaskInfo:
        return self._broker.read(lambda txn: self._show(txn, request.id))

    @refusing
    async def Explain(self, request: admin_pb2.ExplainRequest) -> admin_pb2.ExplainReply:
        with self._broker.engine.read() as txn:
            record, sentence = view.explain(
                txn, request.id, self._broker.dispatcher, self._clock.now_ms()
            )
        return admin_pb2.ExplainReply(
            stage=convert.wire_stage(record) if record else None,
            sentence=sentence,
            lacks_worker=record is not None and view.lacks_worker(record, self._broker.dispatcher),
        )

    @refusing
    async def Reschedule(self, request: admin_pb2.RescheduleRequest) -> admin_pb2.TaskInfo:
        await self._pump.ask(schedule.Reschedule(request.id, request.eta_ms))
        return self._broker.read(lambda txn: self._show(txn, request.id))

    @refusing
    async def Revoke(self, request: admin_pb2.RevokeRequest) -> admin_pb2.RevokeReply:
        if not (request.ids or request.labels or request.root_id):
            raise Invalid("nothing to revoke: name ids, labels or a root")
        reply = admin_pb2.RevokeReply()
        ending = (request.terminate, request.signal or "SIGTERM", request.why or "revoked")
        ids = list(request.ids)
        for at in range(0, len(ids), limits.STEP_ITEMS_MAX):
            command = Revoke(ids[at : at + limits.STEP_ITEMS_MAX], *ending)
            tasks.add_revoked(reply, await self._pump.ask(command))
        kinds = [(index.LABEL, label) for label in request.labels]
        if request.root_id:
            kinds.append((index.ROOT, request.root_id))
        for kind, value in kinds:
            after_id = ""
            while True:
                revoked, after_id = await self._pump.ask(
                    RevokeIndexed(kind, value, after_id, *ending)
                )
                tasks.add_revoked(reply, revoked)
                if not after_id:
                    break
        return reply

    def _show(self, txn: ReadTxn, message_id: str) -> admin_pb2.TaskInfo:
        record = message.peek(txn, message_id)
        if record is None:
            raise NotFound(f"there is no message {message_id!r}")
        info = tasks.info(self._worker, message_id, record)
        if record.stage != Stage.DONE or record.flags & Flag.PAYLOAD_KEPT:
            info.message = payloads.read(txn, message_id, record)
            info.result = payloads.read_status(txn, message_id, record)
        elif not record.flags & Flag.NOTHING_KEPT:
            info.result = payloads.read(txn, message_id, record)
        return info

    # -- dead letters ------------------------------------------------------------------------------

    @refusing
    async def RequeueDead(self, request: admin_pb2.DeadRequest) -> admin_pb2.DeadReply:
        return await self._each_dead(request, dead.Requeue)

    @refusing
    async def RemoveDead(self, request: admin_pb2.DeadRequest) -> admin_pb2.DeadReply:
        return await self._each_dead(request, dead.Remove)

    async def _each_dead(
        self,
        request: admin_pb2.DeadRequest,
        command: Callable[[tuple[str, ...]], dead.Requeue | dead.Remove],
    ) -> admin_pb2.DeadReply:
        if not (request.ids or request.task or request.queue or request.all):
            raise Invalid("name ids, a task, a queue, or all")
        total = 0
        after: tuple[int, str] | None = None
        while True:
            with self._broker.engine.read() as txn:
                letters = dead.find(txn, after, view.PAGE_MAX)
                ids = tuple(_chosen(txn, request, letters))
            if ids:
                total += len(ids) if request.dry_run else await self._pump.ask(command(ids))
            if len(letters) < view.PAGE_MAX:
                return admin_pb2.DeadReply(count=total)
            after = letters[-1]


def _chosen(
    txn: ReadTxn, request: admin_pb2.DeadRequest, letters: Iterable[tuple[int, str]]
) -> Iterable[str]:
    named = frozenset(request.ids)
    for _, message_id in letters:
        if named and message_id not in named:
            continue
        record = message.peek(txn, message_id)
        if (
            record is not None
            and (not request.task or record.task == request.task)
            and (not request.queue or record.queue == request.queue)
        ):
            yield message_id
