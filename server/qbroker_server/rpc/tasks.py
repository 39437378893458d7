"""What operators are told of tasks, by whichever service."""

from qbroker_proto.v1 import admin_pb2
from qbroker_server.core.records import EndReason, Flag, Record, Stage
from qbroker_server.core.revoke import Revoked
from qbroker_server.rpc import convert
from qbroker_server.rpc.work import Worker


def info(worker: Worker, message_id: str, record: Record) -> admin_pb2.TaskInfo:
    """A task without its message and result."""
    extras = record.extras
    info = admin_pb2.TaskInfo(
        id=message_id,
        task=record.task,
        queue=record.queue,
        stage=convert.wire_stage(record),
        state=record.state or "PENDING",
        priority=record.priority,
        attempt=record.attempt,
        retries=record.retries,
        deaths=record.deaths,
        published_ms=record.published_ms,
        eta_ms=record.eta_ms,
        expires_ms=record.expires_ms,
        changed_ms=record.changed_ms,
        worker=_worker_name(worker, record.session),
        end_reason=convert.REASONS[EndReason(record.end_reason)],
        detail=record.detail,
        message_bytes=record.size,
        is_waiting_to_retry=record.stage == Stage.SCHEDULED
        and bool(record.flags & Flag.LEFT_TO_RETRY),
    )
    if extras is not None:
        info.labels.extend(extras.labels)
        info.root_id = extras.root_id
        info.unique_key = extras.unique_key
        info.workflow_id = extras.workflow_id
        if extras.place is not None:
            info.join_id, info.join_index = extras.place
        if extras.wait is not None:
            info.waits_for = extras.wait.join_id
        for attempt, how, at_ms, session, line in extras.history:
            info.history.add(
                attempt=attempt,
                how=how,
                at_ms=at_ms,
                worker=_worker_name(worker, str(session)),
                line=line,
            )
    return info


def _worker_name(worker: Worker, session: str) -> str:
    registered = worker.registrations.get(session)
    return registered.name if registered is not None else session


def add_revoked(reply: admin_pb2.RevokeReply, revoked: Revoked) -> None:
    """Tell what became of a step's ids."""
    reply.ended.extend(revoked.ended)
    reply.told.extend(revoked.told)
    reply.late.extend(revoked.late)
