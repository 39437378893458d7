"""The Admin service: the broker at a glance, and what operators do to it."""

from typing import TypeAlias

import grpc

from qbroker_proto.v1 import admin_pb2, admin_pb2_grpc
from qbroker_server.broker import Broker
from qbroker_server.core import limits, queue
from qbroker_server.core.errors import CoreError
from qbroker_server.pump import Pump
from qbroker_server.rpc import status
from qbroker_server.rpc.work import Worker

StatusContext: TypeAlias = (
    "grpc.aio.ServicerContext[admin_pb2.StatusRequest, admin_pb2.StatusReply]"
)
PurgeContext: TypeAlias = (
    "grpc.aio.ServicerContext[admin_pb2.PurgeQueueRequest, admin_pb2.PurgeQueueReply]"
)


class Admin(admin_pb2_grpc.AdminServicer):
    """Answers from the store and the dispatcher, never from a worker."""

    def __init__(
        self, broker: Broker, pump: Pump, worker: Worker, *, version: str, started_ms: int
    ) -> None:
        self._broker = broker
        self._pump = pump
        self._worker = worker
        self._version = version
        self._started_ms = started_ms

    async def Status(
        self, request: admin_pb2.StatusRequest, context: StatusContext
    ) -> admin_pb2.StatusReply:
        del request, context
        reply = admin_pb2.StatusReply(
            version=self._version,
            started_ms=self._started_ms,
            engine=self._broker.engine.name,
            stored_bytes=self._broker.engine.stored_bytes(),
        )
        dispatcher = self._broker.dispatcher
        with self._broker.engine.read() as txn:
            for name in queue.names(txn):
                counts = queue.counts(txn, name)
                reply.scheduled_count += max(0, counts.scheduled_count)
                reply.queues.add(
                    name=name,
                    # Below 0 only when a damaged record had to begin anew.
                    ready_count=max(0, counts.ready_count),
                    leased_count=max(0, counts.leased_count),
                    consumer_count=dispatcher.consumer_count(name),
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
            )
        return reply

    async def PurgeQueue(
        self, request: admin_pb2.PurgeQueueRequest, context: PurgeContext
    ) -> admin_pb2.PurgeQueueReply:
        purged_count = 0
        try:
            while True:
                count = await self._pump.ask(queue.Purge(request.queue))
                purged_count += count
                if count < limits.STEP_ITEMS_MAX:
                    return admin_pb2.PurgeQueueReply(purged_count=purged_count)
        except CoreError as error:
            await context.abort(status.status_of(error), str(error))
