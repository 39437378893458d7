"""A workflow: messages and joins that were published together, counted as they end.

    y <workflow>  → record of the workflow

Its messages are found by the index (index.py), its shape is in their records: what each waits for, and where its
value goes.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from qbroker_server.core import frame, keys, timetable
from qbroker_server.core.effects import Effects, Ended
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn, Txn

VERSION = 1
"""Of a workflow's record; records.py says how to raise it."""


@dataclass(slots=True)
class Workflow:
    """How far a workflow is."""

    published_ms: int
    task: str
    """The task of its first message."""
    root_id: str
    """The id of its first message."""
    message_count: int
    ended_count: int = 0
    failed_count: int = 0
    """Of the ended ones, those that did not succeed."""
    changed_ms: int = 0


def encode_workflow(workflow: Workflow) -> bytes:
    """The workflow's record as it is stored."""
    body = json.dumps(asdict(workflow), separators=(",", ":")).encode()
    return frame.seal(frame.BIG, VERSION, body)


def _read(key: bytes, raw: bytes) -> Workflow:
    del key
    return Workflow(**json.loads(raw[frame.BYTES :]))


READERS: Mapping[int, Callable[[bytes, bytes], Workflow]] = {1: _read}
"""By the first version that each reads."""


def decode_workflow(key: bytes, raw: bytes) -> Workflow:
    """The record stored at `key`; CorruptRecord when it is not what was written, NewerVersion."""
    return frame.read(frame.BIG, key, raw, VERSION, READERS)


def peek(txn: ReadTxn, workflow_id: str) -> Workflow | None:
    """The workflow's record, or None."""
    key = keys.WORKFLOW + workflow_id.encode()
    raw = txn.get(key)
    return None if raw is None else decode_workflow(key, raw)


def find(txn: ReadTxn, workflow_id: str, effects: Effects) -> Workflow | None:
    """The workflow's record with what this step did to it; change it in place."""
    known = effects.workflows
    if workflow_id not in known:
        try:
            known[workflow_id] = peek(txn, workflow_id)
        except CorruptRecord as error:
            # It only counts: the messages are all there.
            effects.damaged.append(str(error))
            known[workflow_id] = None
    workflow = known[workflow_id]
    assert workflow is None or isinstance(workflow, Workflow), "nobody else sets them"
    return workflow


def add(workflow_id: str, workflow: Workflow, effects: Effects) -> None:
    """A new workflow."""
    effects.workflows[workflow_id] = workflow


def grow(txn: ReadTxn, workflow_id: str, effects: Effects) -> None:
    """The workflow has one message more."""
    workflow = find(txn, workflow_id, effects) if workflow_id else None
    if workflow is not None:
        workflow.message_count += 1


def note_end(txn: Txn, workflow_id: str, ended: Ended, now_ms: int, effects: Effects) -> None:
    """A message of the workflow has ended."""
    workflow = find(txn, workflow_id, effects)
    if workflow is None:
        return
    workflow.ended_count += 1
    workflow.changed_ms = now_ms
    if not ended.is_success:
        workflow.failed_count += 1
    if workflow.ended_count >= workflow.message_count:
        at_ms = now_ms + effects.policy.result_ttl_ms
        timetable.remind(txn, at_ms, timetable.WORKFLOW, workflow_id, effects)


def note_revival(txn: ReadTxn, workflow_id: str, now_ms: int, effects: Effects) -> None:
    """A message of the workflow that had ended without success runs again."""
    workflow = find(txn, workflow_id, effects) if workflow_id else None
    if workflow is not None:
        workflow.ended_count -= 1
        workflow.failed_count -= 1
        workflow.changed_ms = now_ms


def look_at(txn: Txn, workflow_id: str, now_ms: int, effects: Effects) -> None:
    """The time index names the workflow: forget it, unless something of it runs again or ended lately."""
    workflow = find(txn, workflow_id, effects)
    if workflow is None or workflow.ended_count < workflow.message_count:
        return
    at_ms = workflow.changed_ms + effects.policy.result_ttl_ms
    if at_ms > now_ms:
        timetable.remind(txn, at_ms, timetable.WORKFLOW, workflow_id, effects)
        return
    effects.workflows[workflow_id] = None
    txn.delete(keys.WORKFLOW + workflow_id.encode())


def flush(txn: Txn, effects: Effects) -> None:
    """Write what changed."""
    for workflow_id, workflow in effects.workflows.items():
        if isinstance(workflow, Workflow):
            txn.put(keys.WORKFLOW + workflow_id.encode(), encode_workflow(workflow))


def page(txn: ReadTxn, after: str, limit: int) -> list[tuple[str, Workflow]]:
    """Up to `limit` workflows from behind the id `after`, in order of their ids."""
    start = keys.WORKFLOW + (after.encode() + b"\x00" if after else b"")
    found: list[tuple[str, Workflow]] = []
    for key, raw in txn.scan(start, keys.after(keys.WORKFLOW), limit):
        try:
            found.append((key[len(keys.WORKFLOW) :].decode(), decode_workflow(key, raw)))
        except CorruptRecord:
            continue
    return found
