"""Trying a workflow again: what of it failed, or was never reached because of that, goes on from where it stopped."""

from dataclasses import dataclass

from qbroker_server.core import (
    dead,
    index,
    joins,
    limits,
    message,
    payloads,
    publish,
    queue,
    workflows,
)
from qbroker_server.core.effects import Effects
from qbroker_server.core.errors import Conflict, NotFound
from qbroker_server.core.ports import Txn
from qbroker_server.core.records import EndReason, Flag, Record, Stage


@dataclass(frozen=True, slots=True)
class RetryWorkflow:
    """Revive up to a step's worth of a workflow's failed messages, from behind `after_id`.

    Answers how many run again, how many wait for those again, and the last id, to go on behind it; "" when there
    are no more. What succeeded stays as it is. Conflict when a part of the workflow was forgotten: what waited for
    that would wait for ever.
    """

    workflow_id: str
    after_id: str = ""

    @property
    def cost(self) -> tuple[int, int]:
        return limits.STEP_ITEMS_MAX, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> tuple[int, int, str]:
        if not self.after_id:
            _check_whole(txn, self.workflow_id, effects)
        retried_count = waiting_count = 0
        ids = index.find(txn, index.WORKFLOW, self.workflow_id, self.after_id)
        for message_id in ids:
            record = message.find(txn, message_id, effects)
            if record is None or not _has_failed(record) or not _is_reachable(txn, record, effects):
                continue
            if record.stage == Stage.DEAD:
                dead.dig(txn, message_id, record)
            _revive(txn, message_id, record, now_ms, effects)
            if record.stage == Stage.WAITING:
                waiting_count += 1
            else:
                retried_count += 1
            workflows.note_revival(txn, self.workflow_id, now_ms, effects)
        return (
            retried_count,
            waiting_count,
            ids[-1] if len(ids) == limits.STEP_ITEMS_MAX else "",
        )


def _check_whole(txn: Txn, workflow_id: str, effects: Effects) -> None:
    workflow = workflows.find(txn, workflow_id, effects)
    if workflow is None:
        raise NotFound(f"there is no workflow {workflow_id!r}")
    count, after_id = 0, ""
    while ids := index.find(txn, index.WORKFLOW, workflow_id, after_id):
        count, after_id = count + len(ids), ids[-1]
    if count < workflow.message_count:
        raise Conflict(
            f"{workflow.message_count - count} of the {workflow.message_count} tasks of workflow {workflow_id!r} have been "
            "forgotten (result_expires), so it cannot be tried again; publish it anew"
        )


def _has_failed(record: Record) -> bool:
    return record.stage == Stage.DEAD or (
        record.stage == Stage.DONE and bool(record.flags & Flag.PAYLOAD_KEPT)
    )


def _is_reachable(txn: Txn, record: Record, effects: Effects) -> bool:
    """Whether what it waits for is there, or will be: its culprit can be revived, or is already."""
    wait = record.extras.wait if record.extras is not None else None
    while wait is not None:
        join = joins.of(effects).find(txn, wait.join_id, effects)
        if join is None:
            return False
        if join.cause is None:
            return True
        culprit = message.find(txn, join.cause.culprit, effects)
        if culprit is None or (culprit.stage == Stage.DONE and not _has_failed(culprit)):
            return False
        wait = culprit.extras.wait if culprit.extras is not None else None
    return True


def _revive(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    extras = record.extras
    assert extras is not None, "it is of a workflow"
    payloads.drop_status(txn, message_id, record)
    record.flags &= ~(Flag.PAYLOAD_KEPT | Flag.NOTHING_KEPT | Flag.REVOKING | Flag.TERMINATING)
    record.deaths = record.retries = 0
    record.end_reason = EndReason.NONE
    record.state = record.detail = record.session = ""
    record.changed_ms = now_ms
    record.eta_ms = 0
    own_ms = queue.own_expires_ms(record)
    queue.set_expires(record, own_ms if own_ms > now_ms else 0)
    for row in index.labels(message_id, extras):
        txn.put(row, b"")
    place = extras.place
    while place is not None:
        join = joins.of(effects).find(txn, place[0], effects)
        if join is None or join.cause is None:
            break
        join.cause = None
        place = join.place
    publish.resume(txn, message_id, record, now_ms, effects)
    effects.changed[message_id] = record
