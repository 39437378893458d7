"""The Workflows service: what was published together, as a whole."""

from qbroker_proto.v1 import admin_pb2, workflow_pb2, workflow_pb2_grpc
from qbroker_server.broker import Broker
from qbroker_server.core import index, limits, message, retry, view, workflows
from qbroker_server.core.errors import Invalid, NotFound
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.revoke import RevokeIndexed
from qbroker_server.pump import Pump
from qbroker_server.rpc import tasks
from qbroker_server.rpc.status import refusing
from qbroker_server.rpc.work import Worker


class Workflows(workflow_pb2_grpc.WorkflowsServicer):
    """Answers from the store, and cancels or revives step by step."""

    def __init__(self, broker: Broker, pump: Pump, worker: Worker) -> None:
        self._broker = broker
        self._pump = pump
        self._worker = worker

    @refusing
    async def List(self, request: workflow_pb2.ListRequest) -> workflow_pb2.ListReply:
        limit = request.limit or view.PAGE_MAX
        if limit > view.PAGE_MAX:
            raise Invalid(f"limit {limit!r} is not 1 to {view.PAGE_MAX}")
        with self._broker.engine.read() as txn:
            found = workflows.page(txn, request.after, limit)
        return workflow_pb2.ListReply(
            workflows=[_info(workflow_id, workflow) for workflow_id, workflow in found],
            next=found[-1][0] if len(found) == limit else "",
        )

    @refusing
    async def Show(self, request: workflow_pb2.ShowRequest) -> workflow_pb2.ShowReply:
        with self._broker.engine.read() as txn:
            workflow_id, workflow = _find(txn, request.id)
            ids = index.find(txn, index.WORKFLOW, workflow_id, request.after)
            records = [(one, message.peek(txn, one)) for one in ids]
        return workflow_pb2.ShowReply(
            workflow=_info(workflow_id, workflow),
            tasks=[
                tasks.info(self._worker, one, record)
                for one, record in records
                if record is not None
            ],
            next=ids[-1] if len(ids) == limits.STEP_ITEMS_MAX else "",
        )

    @refusing
    async def Cancel(self, request: workflow_pb2.CancelRequest) -> admin_pb2.RevokeReply:
        with self._broker.engine.read() as txn:
            workflow_id, _ = _find(txn, request.id)
        reply = admin_pb2.RevokeReply()
        after_id = ""
        while True:
            command = RevokeIndexed(
                index.WORKFLOW,
                workflow_id,
                after_id,
                request.terminate,
                request.signal or "SIGTERM",
                request.why or "cancelled with its workflow",
            )
            revoked, after_id = await self._pump.ask(command)
            tasks.add_revoked(reply, revoked)
            if not after_id:
                return reply

    @refusing
    async def Retry(self, request: workflow_pb2.RetryRequest) -> workflow_pb2.RetryReply:
        with self._broker.engine.read() as txn:
            workflow_id, _ = _find(txn, request.id)
        reply = workflow_pb2.RetryReply()
        after_id = ""
        while True:
            command = retry.RetryWorkflow(workflow_id, after_id)
            retried, waiting, after_id = await self._pump.ask(command)
            reply.retried_count += retried
            reply.waiting_count += waiting
            if not after_id:
                return reply


def _find(txn: ReadTxn, name: str) -> tuple[str, workflows.Workflow]:
    """A workflow by its own id, or by the id of any of its tasks."""
    workflow = workflows.peek(txn, name)
    if workflow is not None:
        return name, workflow
    record = message.peek(txn, name)
    own_id = record.extras.workflow_id if record is not None and record.extras else ""
    workflow = workflows.peek(txn, own_id) if own_id else None
    if workflow is None:
        raise NotFound(f"there is no workflow {name!r}, and no task {name!r} of one")
    return own_id, workflow


def _info(workflow_id: str, workflow: workflows.Workflow) -> workflow_pb2.WorkflowInfo:
    return workflow_pb2.WorkflowInfo(
        id=workflow_id,
        task=workflow.task,
        root_id=workflow.root_id,
        published_ms=workflow.published_ms,
        changed_ms=workflow.changed_ms,
        message_count=workflow.message_count,
        ended_count=workflow.ended_count,
        failed_count=workflow.failed_count,
    )
