"""What is always true of a healthy store, and where it is not.

Used by property tests and simulations as their invariant; reads everything, so it is not for a
serving broker.
"""

from collections import Counter
from collections.abc import Callable, Iterator

from qbroker_server.core import (
    index,
    joins,
    keys,
    payloads,
    periodic,
    queue,
    routes,
    timetable,
    workflows,
)
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.records import Flag, Record, Stage, decode, decode_queue

_EVERYTHING = 2**31
_WAITING = (Stage.WAITING, Stage.SCHEDULED, Stage.QUEUED)


def faults(txn: ReadTxn) -> list[str]:
    """Each way in which the store contradicts itself, as a sentence; empty when it is healthy."""
    found: list[str] = []
    records: dict[str, Record] = {}
    for key, raw in _family(txn, keys.MESSAGE):
        try:
            records[key[len(keys.MESSAGE) :].decode()] = decode(key, raw)
        except CorruptRecord as error:
            found.append(str(error))
    found += _ready_faults(txn, records)
    found += _lease_faults(txn, records)
    found += _time_faults(txn, records)
    found += _count_faults(txn, records)
    found += _payload_faults(txn, records)
    found += _dead_faults(txn, records)
    found += _index_faults(txn, records)
    found += _queue_and_route_faults(txn)
    found += _entry_faults(txn)
    found += _join_faults(txn, records)
    found += _workflow_faults(txn, records)
    return found


def _family(txn: ReadTxn, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
    yield from txn.scan(prefix, keys.after(prefix), _EVERYTHING)


def _ready_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    standing: Counter[str] = Counter()
    for key, raw_id in _family(txn, keys.READY):
        message_id = raw_id.decode()
        standing[message_id] += 1
        record = records.get(message_id)
        if record is None:
            yield f"{message_id!r} stands in a queue but has no record"
        elif record.stage != Stage.QUEUED or queue.ready_key(record) != key:
            yield f"{message_id!r} stands at {key!r}, its record says otherwise"
    for message_id, record in records.items():
        if record.stage == Stage.QUEUED and standing[message_id] != 1:
            yield f"{message_id!r} is queued but stands in {standing[message_id]} places"
        if record.stage in (Stage.QUEUED, Stage.LEASED, Stage.STARTED):
            last_seq = queue.counts(txn, record.queue).last_seq
            if record.seq > last_seq:
                # The queue would give the number to another message, which would overwrite this one's row.
                yield f"{message_id!r} has the number {record.seq}, its queue has given {last_seq}"


def _lease_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    held: Counter[str] = Counter()
    for key, raw in _family(txn, keys.LEASE):
        session, _, raw_id = key[len(keys.LEASE) :].partition(b"\x00")
        message_id, attempt = raw_id.decode(), keys.U32.unpack(raw)[0]
        held[message_id] += 1
        record = records.get(message_id)
        if (
            record is None
            or record.stage not in (Stage.LEASED, Stage.STARTED)
            or (record.session, record.attempt) != (session.decode(), attempt)
        ):
            yield f"{session!r} holds attempt {attempt} of {message_id!r}, its record says otherwise"
    for message_id, record in records.items():
        if record.stage in (Stage.LEASED, Stage.STARTED) and held[message_id] != 1:
            yield f"{message_id!r} is leased but held {held[message_id]} times"


def _time_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    reminders = {key for key, _ in _family(txn, keys.TIME)}
    reminded = _reminded(txn)
    for message_id, record in records.items():
        if record.stage == Stage.SCHEDULED:
            key = keys.TIME + keys.U64.pack(record.eta_ms) + timetable.DUE + message_id.encode()
            if key not in reminders:
                yield f"{message_id!r} is scheduled but nothing reminds of it"
        if record.stage in _WAITING and record.expires_ms:
            key = (
                keys.TIME
                + keys.U64.pack(record.expires_ms)
                + timetable.EXPIRES
                + message_id.encode()
            )
            # Of one that is queued, the head of its queue is looked at as well.
            if key not in reminders and record.stage != Stage.QUEUED:
                yield f"{message_id!r} expires but nothing reminds of it"
        elif record.stage == Stage.DONE and record.result_ttl_ms >= 0:
            kind_and_id = timetable.FORGET + message_id.encode()
            if kind_and_id not in reminded:
                yield f"{message_id!r} has ended but nothing reminds to forget it"


def _reminded(txn: ReadTxn) -> set[bytes]:
    """Kind and subject of each reminder."""
    return {key[len(keys.TIME) + keys.U64.size :] for key, _ in _family(txn, keys.TIME)}


def _count_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    actual: Counter[tuple[str, str]] = Counter()
    column = {
        Stage.QUEUED: "ready",
        Stage.LEASED: "leased",
        Stage.STARTED: "leased",
        Stage.SCHEDULED: "scheduled",
    }
    for record in records.values():
        if record.stage not in (Stage.DONE, Stage.DEAD, Stage.WAITING):
            actual[record.queue, column[Stage(record.stage)]] += 1
    for name in {*queue.names(txn), *(name for name, _ in actual)}:
        counts = queue.counts(txn, name)
        for what, count in (
            ("ready", counts.ready_count),
            ("leased", counts.leased_count),
            ("scheduled", counts.scheduled_count),
        ):
            if count != actual[name, what]:
                yield f"queue {name!r} counts {count} {what}, there are {actual[name, what]}"


def _payload_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    apart = {
        key[len(keys.PAYLOAD) : -1 - keys.U32.size].decode()
        for key, _ in _family(txn, keys.PAYLOAD)
    }
    for message_id in apart - records.keys():
        yield f"{message_id!r} has a payload but no record"
    for message_id, record in records.items():
        is_apart = bool(record.flags & Flag.PAYLOAD_APART)
        if is_apart != (message_id in apart):
            yield f"{message_id!r} has a payload apart: {message_id in apart}, its record says {is_apart}"
        elif is_apart or record.flags & Flag.PAYLOAD_SHARED:
            try:
                payloads.read(txn, message_id, record)
            except CorruptRecord as error:
                yield str(error)
    shared = Counter(
        payloads.shared_key(record)
        for record in records.values()
        if record.flags & Flag.PAYLOAD_SHARED
    )
    for key, raw in _family(txn, keys.SHARED):
        digest_key = key[: payloads.SHARED_KEY_BYTES]
        # Its rows follow the number.
        count = keys.U32.unpack(raw)[0] if key == digest_key else shared[digest_key]
        if not count or count != shared[digest_key]:
            yield f"the payload {key!r} is said to be shared by {count}, and is by {shared[digest_key]}"


def _dead_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    at = len(keys.DEAD)
    listed = {
        key[at + 8 :].decode(): keys.U64.unpack_from(key, at)[0]
        for key, _ in _family(txn, keys.DEAD)
    }
    dead = {i: r.changed_ms for i, r in records.items() if r.stage == Stage.DEAD}
    for message_id in listed.keys() ^ dead.keys():
        yield f"{message_id!r} is listed as a dead letter: {message_id in listed}, its record says otherwise"
    for message_id in listed.keys() & dead.keys():
        if listed[message_id] != dead[message_id]:
            yield f"the dead letter {message_id!r} is listed at {listed[message_id]}, not {dead[message_id]}"


def _index_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    wanted = {
        row
        for message_id, record in records.items()
        if record.extras is not None
        for row in (
            *index.origins(message_id, record.extras),
            *(
                index.labels(message_id, record.extras)
                if record.stage not in (Stage.DONE, Stage.DEAD)
                else ()
            ),
        )
    }
    found = {key for key, _ in _family(txn, keys.INDEX)}
    for row in wanted ^ found:
        yield f"the index row {row!r} is there: {row in found}, the records say otherwise"
    for key, raw_id in _family(txn, keys.UNIQUE):
        record = records.get(raw_id.decode("utf-8", "replace"))
        if record is None or record.extras is None:
            yield f"the unique key {key!r} is held by {raw_id!r}, which has none"


def _queue_and_route_faults(txn: ReadTxn) -> Iterator[str]:
    looks: tuple[tuple[bytes, Callable[[bytes, bytes], object]], ...] = (
        (keys.QUEUE, decode_queue),
        (keys.EXCHANGE, routes.check_row),
        (keys.BINDING, routes.check_row),
    )
    for family, look in looks:
        for key, raw in _family(txn, family):
            try:
                look(key, raw)
            except CorruptRecord as error:
                yield str(error)


def _entry_faults(txn: ReadTxn) -> Iterator[str]:
    reminded = _reminded(txn)
    for key, raw in _family(txn, keys.ENTRY):
        try:
            entry = periodic.decode(key, raw)
        except CorruptRecord as error:
            yield str(error)
            continue
        kind_and_name = timetable.PERIODIC + key[len(keys.ENTRY) :]
        is_due = entry.next_ms and not entry.paused_ms
        if is_due and kind_and_name not in reminded:
            yield f"the entry {key!r} is due at {entry.next_ms} but nothing reminds of it"


def _join_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    standing: set[tuple[str, str]] = set()
    for key, _ in _family(txn, keys.WAITER):
        join_id, _, message_id = key[len(keys.WAITER) :].decode().partition("\x00")
        standing.add((join_id, message_id))
        record = records.get(message_id)
        wait = record.extras.wait if record is not None and record.extras is not None else None
        if (
            record is None
            or record.stage != Stage.WAITING
            or wait is None
            or wait.join_id != join_id
        ):
            yield f"{message_id!r} stands before the join {join_id!r}, its record says otherwise"
    known: dict[str, joins.Join] = {}
    for key, raw in _family(txn, keys.JOIN):
        try:
            known[key[len(keys.JOIN) :].decode()] = joins.decode_join(key, raw)
        except CorruptRecord as error:
            yield str(error)
    for message_id, record in records.items():
        wait = record.extras.wait if record.extras is not None else None
        if record.stage != Stage.WAITING or wait is None:
            continue
        if (wait.join_id, message_id) not in standing:
            yield f"{message_id!r} waits for the join {wait.join_id!r} but does not stand before it"
        join = known.get(wait.join_id)
        if join is None:
            yield f"{message_id!r} waits for the join {wait.join_id!r}, which is not there"
    arrived: Counter[str] = Counter()
    for key, _ in _family(txn, keys.VALUE):
        arrived[key[len(keys.VALUE) : -1 - keys.U32.size].decode()] += 1
    for join_id in arrived.keys() - known.keys():
        yield f"there are values of the join {join_id!r}, which is not there"
    for join_id, join in known.items():
        if join.arrived_count != arrived[join_id]:
            yield f"the join {join_id!r} counts {join.arrived_count} values, there are {arrived[join_id]}"
        if join.is_complete != (join.arrived_count == join.size and join.cause is None):
            yield f"the join {join_id!r} has {join.arrived_count} of {join.size} values and is complete: {join.is_complete}"


def _workflow_faults(txn: ReadTxn, records: dict[str, Record]) -> Iterator[str]:
    running: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    for record in records.values():
        workflow_id = record.extras.workflow_id if record.extras is not None else ""
        if record.stage not in (Stage.DONE, Stage.DEAD):
            running[workflow_id] += 1
        elif record.stage == Stage.DEAD or record.flags & Flag.PAYLOAD_KEPT:
            failed[workflow_id] += 1
    for key, raw in _family(txn, keys.WORKFLOW):
        workflow_id = key[len(keys.WORKFLOW) :].decode()
        try:
            workflow = workflows.decode_workflow(key, raw)
        except CorruptRecord as error:
            yield str(error)
            continue
        # What has ended may be forgotten, what has not is there.
        ended_count = workflow.message_count - running[workflow_id]
        if workflow.ended_count != ended_count:
            yield (
                f"the workflow {workflow_id!r} counts {workflow.ended_count} ended messages, "
                f"there are {ended_count}"
            )
        if not failed[workflow_id] <= workflow.failed_count <= workflow.ended_count:
            yield (
                f"the workflow {workflow_id!r} counts {workflow.failed_count} failed messages of "
                f"{workflow.ended_count}, there are {failed[workflow_id]}"
            )
