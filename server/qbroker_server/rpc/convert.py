"""Messages of the wire as values of the core, and back."""

import json
from collections.abc import Iterator
from zlib import crc32

from google.protobuf.message import DecodeError

from qbroker_proto import checksum
from qbroker_proto.v1 import admin_pb2, message_pb2, results_pb2, worker_pb2
from qbroker_server.core import joins, limits, payloads
from qbroker_server.core.dispatch import Delivery
from qbroker_server.core.errors import CorruptRecord, Damaged, HeadersTooLarge, Invalid
from qbroker_server.core.lease import LeaseId, Outcome, Settle, Start
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.publish import New, NewJoin, NewMessage, NewWorkflow
from qbroker_server.core.records import (
    EndReason,
    Extras,
    Flag,
    Limit,
    QueueOptions,
    Record,
    Stage,
    Wait,
)
from qbroker_server.core.results import is_on_the_way
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.routing import Declare, QueueDeclaration

_parse = message_pb2.Message.FromString
_LATE = message_pb2.ACK_POLICY_LATE


def unreadable(error: DecodeError) -> Invalid:
    """What a client is told that sent something else than a request."""
    return Invalid(f"the request cannot be read: {error}")


def new(raw: bytes, body_bytes_max: int) -> New:
    """A published message or workflow; Invalid when it cannot be read or is too large, Damaged by its checksum."""
    check_bytes("message", raw)
    try:
        wire = _parse(raw)
    except DecodeError as error:
        raise _unreadable(error) from error
    # Only a workflow names no task; asking for that first costs each message less.
    if not wire.task and wire.HasField("workflow"):
        return _new_workflow(wire, body_bytes_max)
    if len(raw) > body_bytes_max:
        raise _too_large(raw, body_bytes_max)
    return _new_message(raw, wire, "", body_bytes_max)


def _new_workflow(wire: message_pb2.Message, body_bytes_max: int) -> NewWorkflow:
    workflow = wire.workflow
    return NewWorkflow(
        wire.id,
        tuple([new_message(one, body_bytes_max, wire.id) for one in workflow.messages]),
        tuple(
            [
                NewJoin(
                    join.id,
                    join.size,
                    join.is_list,
                    (join.join_id, join.join_index) if join.join_id else None,
                    join.entry_id,
                )
                for join in workflow.joins
            ]
        ),
    )


def check_bytes(what: str, raw: bytes) -> None:
    """Raise Damaged when the bytes end in a checksum that is not theirs."""
    if checksum.is_damaged(raw):
        raise Damaged(
            f"the {what} of {len(raw)} bytes was damaged on the way: its checksum is not that of its bytes. Send it again"
        )


def _unreadable(error: DecodeError) -> Invalid:
    return Invalid(f"the bytes are not a qbroker.v1.Message: {error}")


def _too_large(raw: bytes, body_bytes_max: int) -> Invalid:
    return Invalid(
        f"the message has {len(raw)} bytes; the broker's max_message_bytes is {body_bytes_max}. "
        "Pass a reference to large data instead, or raise the setting"
    )


def new_message(raw: bytes, body_bytes_max: int, workflow_id: str = "") -> NewMessage:
    """A published message; Invalid when it cannot be read or is too large."""
    check_bytes("message", raw)
    if len(raw) > body_bytes_max:
        raise _too_large(raw, body_bytes_max)
    try:
        wire = _parse(raw)
    except DecodeError as error:
        raise _unreadable(error) from error
    if wire.HasField("workflow"):
        raise Invalid(f"the workflow {wire.id!r} stands where only a message can")
    return _new_message(raw, wire, workflow_id, body_bytes_max)


def _new_message(
    raw: bytes, wire: message_pb2.Message, workflow_id: str, body_bytes_max: int
) -> NewMessage:
    if wire.headers or wire.properties:
        for what, text in (("headers", wire.headers), ("properties", wire.properties)):
            size = len(text.encode())
            if size > limits.HEADERS_BYTES_MAX:
                raise HeadersTooLarge(
                    f"the {what} of message {wire.id!r} have {size} bytes; they may have {limits.HEADERS_BYTES_MAX}. "
                    "Pass data as arguments"
                )
    flags = 0
    if wire.ack_policy == _LATE:
        flags = Flag.ACK_LATE
    if wire.ignore_result:
        flags |= Flag.IGNORE_RESULT
    if wire.store_errors_even_if_ignored:
        flags |= Flag.STORE_ERRORS
    if wire.track_started:
        flags |= Flag.TRACK_STARTED
    if wire.requeue_on_timeout:
        flags |= Flag.REQUEUE_ON_TIMEOUT
    if wire.reject_on_failure:
        flags |= Flag.REJECT_ON_FAILURE
    extras = None
    if (
        workflow_id
        or wire.waits_for
        or wire.join_id
        or wire.limits
        or wire.fairness_key
        or wire.labels
        or wire.HasField("unique")
    ):
        extras = _extras(wire, workflow_id)
    elif wire.root_id and wire.root_id != wire.id:
        extras = Extras(root_id=wire.root_id)
    return NewMessage(
        wire.id,
        wire.task,
        wire.queue,
        wire.priority,
        wire.eta_ms,
        wire.expires_ms,
        wire.result_ttl_ms,
        wire.max_deliveries,
        flags,
        raw,
        wire.retries,
        extras,
        wire.unique.policy if extras is not None and extras.unique_key else 0,
        tuple([new_message(one, body_bytes_max) for one in wire.errbacks]) if wire.errbacks else (),
        route_of(wire) if wire.exchange else None,
    )


def route_of(wire: message_pb2.Message) -> Route:
    """Where a message was sent to that names an exchange."""
    return Route(wire.exchange, wire.routing_key, headers_of(wire))


def headers_of(wire: message_pb2.Message) -> dict[str, object]:
    """What an exchange of type headers looks at: the caller's own headers, and what every message has."""
    headers = parse_object("headers", wire.headers)
    return headers | {"task": wire.task, "id": wire.id}


def parse_object(what: str, text: str) -> dict[str, object]:
    """A JSON object; Invalid when it is none."""
    if not text:
        return {}
    if len(text) > _JSON_CHARS_MAX:
        raise Invalid(
            f"{what} of {len(text)} characters is too large to route by; it may have {_JSON_CHARS_MAX}"
        )
    try:
        found: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what} {text[:60]!r} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Invalid(f"{what} {text[:60]!r} is not a JSON object")
    return found


_JSON_CHARS_MAX = 64 * limits.KIB


def _extras(wire: message_pb2.Message, workflow_id: str) -> Extras:
    root_id = wire.root_id if wire.root_id != wire.id else ""
    place = (wire.join_id, wire.join_index) if wire.join_id else None
    if not (
        wire.waits_for or wire.labels or wire.limits or wire.fairness_key or wire.HasField("unique")
    ):
        # The member of a workflow, of which many come at once: each look at a field costs.
        return Extras(root_id=root_id, workflow_id=workflow_id, place=place)
    unique = wire.unique
    return Extras(
        unique_key=unique.key,
        unique_scope=unique.scope,
        # How long, until the message is stored: then it becomes until when.
        unique_until_ms=unique.ttl_ms,
        limits=tuple([Limit(one.key, one.rate, one.per_ms, one.concurrency) for one in wire.limits])
        if wire.limits
        else (),
        fairness_key=wire.fairness_key,
        fairness_weight=wire.fairness_weight or 1,
        labels=tuple(wire.labels),
        root_id=root_id,
        workflow_id=workflow_id,
        place=place,
        wait=Wait(
            wire.waits_for,
            wire.takes_input,
            wire.fails_as_chord,
            wire.delay_ms,
            wire.lifetime_ms,
        )
        if wire.waits_for
        else None,
    )


def settle(wire: worker_pb2.Settle, body_bytes_max: int) -> Settle:
    """A worker's answer, with its fault when its outcome is unknown, or its result or a follow-up cannot be taken."""
    result = wire.result
    check_bytes("result", result)
    fault: Invalid | None = None
    follow_ups: tuple[New, ...] = ()
    added_members: tuple[NewMessage, ...] = ()
    message: NewMessage | None = None
    if not Outcome.SUCCESS <= wire.outcome <= Outcome.REPLACED:
        fault = Invalid(f"outcome {wire.outcome!r} is unknown to this broker")
    elif len(result) > body_bytes_max:
        fault = Invalid(
            f"the result has {len(result)} bytes; the broker's max_message_bytes is {body_bytes_max}. "
            "Return a reference to large data instead, or raise the setting"
        )
        result = b""
    else:
        try:
            follow_ups = tuple([new(raw, body_bytes_max) for raw in wire.follow_ups])
            added_members = tuple([new_message(raw, body_bytes_max) for raw in wire.added_members])
            message = new_message(wire.message, body_bytes_max) if wire.message else None
        except Invalid as error:
            fault = error
    return Settle(
        wire.id,
        wire.attempt,
        wire.outcome,
        result,
        wire.requeue,
        follow_ups,
        message,
        wire.eta_ms,
        wire.detail,
        added_members,
        fault,
    )


def lease_id(wire: worker_pb2.Lease) -> LeaseId:
    """Which delivery of which message."""
    return LeaseId(wire.id, wire.attempt)


def start(wire: worker_pb2.Start, worker: str) -> Start:
    """That a task runs, and what those are told who want to see it: where, as Celery's workers tell it."""
    told = message_pb2.Result(
        state="STARTED",
        content_type="application/json",
        content_encoding="utf-8",
        body=json.dumps({"pid": wire.pid, "hostname": worker}).encode(),
        worker=worker,
    )
    return Start(wire.id, wire.attempt, told.SerializeToString())


PART_BYTES = 4 * 1024 * 1024
"""Of a message that travels in one delivery; more goes into the next of the same id."""


def add_delivery(reply: worker_pb2.WorkReply, delivery: Delivery) -> None:
    """Put the delivery into a reply to the worker that has it on lease."""
    record = delivery.record
    message = b"".join(_message_parts(delivery))
    reply.deliveries.add(
        id=delivery.id,
        attempt=record.attempt,
        redelivered=bool(record.flags & Flag.REDELIVERED),
        task=record.task,
        queue=record.queue,
        ack_policy=_LATE if record.flags & Flag.ACK_LATE else message_pb2.ACK_POLICY_EARLY,
        message=message,
        checksum=crc32(message),
    )


def split(delivery: Delivery) -> Iterator[worker_pb2.WorkReply]:
    """A delivery that is too large for one reply, as several."""
    raw = b"".join(_message_parts(delivery))
    for at in range(0, len(raw), PART_BYTES):
        reply = worker_pb2.WorkReply()
        add_delivery(reply, Delivery(delivery.id, delivery.record, raw[at : at + PART_BYTES]))
        reply.deliveries[0].has_more = at + PART_BYTES < len(raw)
        yield reply


def _message_parts(delivery: Delivery) -> Iterator[bytes]:
    """The message as published, with what the broker adds: protobuf messages in a row are one."""
    yield delivery.payload
    for at in range(0, len(delivery.inputs), _INPUTS_AT_ONCE):
        some = delivery.inputs[at : at + _INPUTS_AT_ONCE]
        yield message_pb2.Message(inputs=[_input(value) for value in some]).SerializeToString()
    failure = delivery.failure
    if failure is not None:
        told = message_pb2.Failure(
            id=failure.id,
            message=failure.message,
            state=failure.state,
            result=failure.result,
            end_reason=REASONS[EndReason(failure.end_reason)],
            detail=failure.detail,
        )
        yield message_pb2.Message(failure=told).SerializeToString()


_INPUTS_AT_ONCE = 500


def _input(value: bytes) -> message_pb2.Input:
    if value.startswith(joins.VALUES):
        return message_pb2.Input(is_list=True, items=[_input(item) for item in joins.items(value)])
    return message_pb2.Input(result=value[len(joins.VALUE) :])


_STAGES = {
    Stage.SCHEDULED: results_pb2.STAGE_SCHEDULED,
    Stage.QUEUED: results_pb2.STAGE_QUEUED,
    Stage.LEASED: results_pb2.STAGE_LEASED,
    Stage.STARTED: results_pb2.STAGE_STARTED,
    Stage.DONE: results_pb2.STAGE_DONE,
    Stage.DEAD: results_pb2.STAGE_DEAD,
    Stage.WAITING: results_pb2.STAGE_WAITING,
}


REASONS = {
    EndReason.NONE: results_pb2.END_REASON_UNSPECIFIED,
    EndReason.SETTLED: results_pb2.END_REASON_SETTLED,
    EndReason.WORKER_LOST: results_pb2.END_REASON_WORKER_LOST,
    EndReason.EXPIRED: results_pb2.END_REASON_EXPIRED,
    EndReason.REVOKED: results_pb2.END_REASON_REVOKED,
    EndReason.MAX_DELIVERIES: results_pb2.END_REASON_MAX_DELIVERIES,
    EndReason.REJECTED: results_pb2.END_REASON_REJECTED,
    EndReason.DROPPED: results_pb2.END_REASON_DROPPED,
    EndReason.REPLACED: results_pb2.END_REASON_REPLACED,
    EndReason.DEPENDENCY: results_pb2.END_REASON_DEPENDENCY,
}


_FROM_WIRE = {wire: stage for stage, wire in _STAGES.items()}


def wire_stage(record: Record) -> results_pb2.Stage:
    """Where the message is, in the wire's number."""
    return _STAGES[Stage(record.stage)]


def stage(wire: int) -> Stage:
    """The wire's number for where a message is; Invalid when no message can be there."""
    for number, found in _FROM_WIRE.items():
        if number == wire:
            return found
    raise Invalid(f"stage {wire!r} is none in which a task can be listed")


def damaged_state(message_id: str, error: CorruptRecord) -> results_pb2.TaskState:
    """What can be said of a task whose record or result cannot be read: nobody need wait for it."""
    return results_pb2.TaskState(
        id=message_id,
        stage=results_pb2.STAGE_DONE,
        state="FAILURE",
        is_final=True,
        detail=f"The broker cannot read it: {error}.",
    )


def task_state(txn: ReadTxn, message_id: str, record: Record | None) -> results_pb2.TaskState:
    """Where a task is, in Celery's words and in the broker's."""
    if record is None:
        return results_pb2.TaskState(id=message_id, state="PENDING")
    state = results_pb2.TaskState(
        id=message_id,
        stage=wire_stage(record),
        state=record.state or "PENDING",
        attempt=record.attempt,
    )
    if record.stage in (Stage.DONE, Stage.DEAD):
        state.is_final = not is_on_the_way(record)
        state.end_reason = REASONS[EndReason(record.end_reason)]
        state.detail = record.detail
        if record.flags & Flag.NOTHING_KEPT:
            state.state = "PENDING"
        elif record.stage == Stage.DEAD or record.flags & Flag.PAYLOAD_KEPT:
            state.result = payloads.read_status(txn, message_id, record)
        else:
            state.result = payloads.read(txn, message_id, record)
    elif record.state:
        state.result = payloads.read_status(txn, message_id, record)
    elif record.stage == Stage.STARTED and record.flags & Flag.TRACK_STARTED:
        state.state = "STARTED"
        state.result = payloads.read_status(txn, message_id, record)
    return state


def queue_options(wire: admin_pb2.QueueOptions) -> QueueOptions:
    """What a queue is to be declared with."""
    return QueueOptions(
        length_max=wire.length_max,
        bytes_max=wire.bytes_max,
        overflow=wire.overflow or QueueOptions().overflow,
        message_ttl_ms=wire.message_ttl_ms,
        deaths_max=wire.max_deliveries,
        expires_ms=wire.expires_ms,
        ageing_ms=wire.ageing_ms,
    )


def declaration(wire: admin_pb2.Topology) -> Declare:
    """What is to be declared; Invalid when it cannot be read."""
    return Declare(
        exchanges=tuple(
            [
                Exchange(one.name, one.type or "direct", one.is_auto_delete, one.alternate)
                for one in wire.exchanges
            ]
        ),
        queues=tuple(
            [
                QueueDeclaration(
                    one.name,
                    queue_options(one.options) if one.HasField("options") else None,
                    one.is_auto_delete,
                )
                for one in wire.queues
            ]
        ),
        bindings=tuple([binding(one) for one in wire.bindings]),
    )


def binding(wire: admin_pb2.Binding) -> Binding:
    """A binding; Invalid when its arguments cannot be read."""
    return Binding(
        wire.exchange,
        wire.destination,
        wire.routing_key,
        wire.is_to_exchange,
        parse_object("arguments", wire.arguments),
    )


def wire_exchange(exchange: Exchange) -> admin_pb2.Exchange:
    """An exchange as it was declared."""
    return admin_pb2.Exchange(
        name=exchange.name,
        type=exchange.type,
        is_auto_delete=exchange.is_auto_delete,
        alternate=exchange.alternate,
    )


def wire_binding(found: Binding) -> admin_pb2.Binding:
    """A binding as it was declared."""
    return admin_pb2.Binding(
        exchange=found.exchange,
        destination=found.destination,
        routing_key=found.routing_key,
        is_to_exchange=found.is_to_exchange,
        arguments=json.dumps(found.arguments) if found.arguments else "",
    )
