"""Makes a consistent store of the rows that could be read of a damaged one.

The records of messages, joins, workflows, queues, entries, exchanges and bindings are facts, and each has a checksum.
What follows from them is made anew: ready rows, leases, dead letters, indexes, unique keys, counts, numbers and reminders.
A message that cannot be run any more is put aside, as the broker does with a damaged record (message.py).
"""

import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from qbroker_server.core import (
    index,
    joins,
    keys,
    payloads,
    periodic,
    queue,
    records,
    routes,
    timetable,
    workflows,
)
from qbroker_server.core.errors import CorruptRecord
from qbroker_server.core.ports import ReadTxn
from qbroker_server.core.records import Flag, QueueRecord, Record, Stage, UniqueScope

_EVERYTHING = 2**31
_STAGES = frozenset(map(int, Stage))
_ENDED = (Stage.DONE, Stage.DEAD)
_LEASED = (Stage.LEASED, Stage.STARTED)
_AT_ONCE_MS = 0
"""A reminder that comes too early only makes the broker look at the record, which says when it is really due."""


@dataclass(frozen=True)
class Lost:
    """One thing that is not in the new store, or not as it was."""

    what: str
    name: str
    why: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def rebuild(
    txn: ReadTxn, others: Mapping[bytes, Sequence[bytes]], now_ms: int
) -> tuple[dict[bytes, bytes], list[Lost]]:
    """The rows of the new store and what is lost; `others` has further values of a key, of which the newest counts."""
    return _Rebuild(txn, others, now_ms).run()


class _Rebuild:
    def __init__(self, txn: ReadTxn, others: Mapping[bytes, Sequence[bytes]], now_ms: int) -> None:
        self._txn = txn
        self._others = others
        self._now_ms = now_ms
        self._rows: dict[bytes, bytes] = {}
        self._lost: list[Lost] = []
        self._records: dict[str, Record] = {}
        self._joins: dict[str, joins.Join] = {}
        self._reminded: set[bytes] = set()
        """Kind and subject of each reminder."""

    def run(self) -> tuple[dict[bytes, bytes], list[Lost]]:
        for family in (keys.DAMAGED, keys.RATE, keys.VERSIONS):
            self._rows.update(self._family(family))
        self._read_records()
        self._read_joins()
        self._keep_payloads()
        self._keep_reminders()
        self._write_joins()
        self._write_queues()
        self._write_records()
        self._write_workflows()
        self._keep_entries()
        self._keep_routes()
        self._tell_missing()
        return self._rows, self._lost

    def _family(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        yield from self._txn.scan(prefix, keys.after(prefix), _EVERYTHING)

    def _lose(self, what: str, name: str, why: str) -> None:
        self._lost.append(Lost(what, name, why))

    def _set_aside(self, message_id: str, why: str) -> None:
        self._records.pop(message_id, None)
        raw = self._txn.get(keys.MESSAGE + message_id.encode())
        if raw is not None:
            self._rows[keys.DAMAGED + message_id.encode()] = raw
        self._lose("message", message_id, why)

    # -- facts -----------------------------------------------------------------------------------

    def _read_records(self) -> None:
        for key, raw in self._family(keys.MESSAGE):
            try:
                message_id = key[len(keys.MESSAGE) :].decode()
            except UnicodeDecodeError:
                self._lose("message", repr(key), "its id is damaged")
                continue
            found: list[Record] = []
            why = ""
            for one in (raw, *self._others.get(key, ())):
                try:
                    found.append(records.decode(key, one))
                except CorruptRecord as error:
                    why = str(error)
            if not found:
                self._set_aside(message_id, why)
                continue
            record = max(found, key=lambda one: (one.changed_ms, one.attempt, one.stage in _ENDED))
            why = self._why_unusable(message_id, record)
            if why:
                self._set_aside(message_id, why)
            else:
                self._records[message_id] = record

    def _why_unusable(self, message_id: str, record: Record) -> str:
        """Why the message cannot be run, or its result not be read, any more."""
        if record.stage not in _STAGES:
            return f"its stage {record.stage!r} is unknown"
        try:
            payloads.read(self._txn, message_id, record)
        except CorruptRecord as error:
            return str(error)
        if record.flags & Flag.IS_ERRBACK and record.stage not in _ENDED:
            try:
                failure = joins.read_failure(self._txn, message_id)
            except (ValueError, LookupError, TypeError, struct.error):
                failure = None
            if failure is None:
                return "the failure that it is told of is lost"
        return ""

    def _read_joins(self) -> None:
        for key, raw in self._family(keys.JOIN):
            name = key[len(keys.JOIN) :].decode(errors="backslashreplace")
            try:
                self._joins[name] = joins.decode_join(key, raw)
            except CorruptRecord as error:
                self._lose("join", name, str(error))
        for message_id, record in list(self._records.items()):
            wait = record.extras.wait if record.extras is not None else None
            if record.stage == Stage.WAITING and (wait is None or wait.join_id not in self._joins):
                self._set_aside(message_id, "what it waits for is lost")

    def _keep_payloads(self) -> None:
        shared: Counter[bytes] = Counter()
        for message_id, record in self._records.items():
            name = message_id.encode()
            if record.flags & Flag.PAYLOAD_SHARED:
                shared[payloads.shared_key(record)] += 1
            elif record.flags & Flag.PAYLOAD_APART:
                self._copy(keys.PAYLOAD + name + b"\x00")
            if record.flags & Flag.HAS_STATUS:
                self._copy_one(keys.STATUS + name)
            if record.flags & Flag.IS_ERRBACK:
                self._copy_one(keys.FAILURE + name)
            if record.flags & Flag.HAS_ERRBACKS:
                self._keep_errbacks(message_id)
        for key, count in shared.items():
            self._copy(key + b"\x00")
            self._rows[key] = keys.U32.pack(count)

    def _keep_errbacks(self, message_id: str) -> None:
        key = keys.ERRBACKS + message_id.encode()
        try:
            joins.read_errbacks(self._txn, message_id)
        except (CorruptRecord, ValueError, LookupError, struct.error):
            self._lose("errbacks", message_id, "their record is damaged")
            return
        if not self._copy_one(key) and self._records[message_id].stage not in _ENDED:
            self._lose("errbacks", message_id, "their record cannot be read")

    def _copy(self, prefix: bytes) -> None:
        self._rows.update(self._family(prefix))

    def _copy_one(self, key: bytes) -> bool:
        raw = self._txn.get(key)
        if raw is not None:
            self._rows[key] = raw
        return raw is not None

    # -- what follows ----------------------------------------------------------------------------

    def _keep_reminders(self) -> None:
        known = b"defjwqp"
        at = len(keys.TIME) + keys.U64.size
        for key, raw in self._family(keys.TIME):
            if len(key) > at + 1 and key[at] in known:
                self._rows[key] = raw
                self._reminded.add(key[at:])

    def _remind(self, at_ms: int, kind: bytes, name: str) -> None:
        self._rows[keys.TIME + keys.U64.pack(max(at_ms, 0)) + kind + name.encode()] = b""

    def _remind_once(self, at_ms: int, kind: bytes, name: str) -> None:
        if kind + name.encode() not in self._reminded:
            self._remind(at_ms, kind, name)

    def _write_joins(self) -> None:
        arrived: dict[str, set[int]] = defaultdict(set)
        for key, raw in self._family(keys.VALUE):
            join_id = key[len(keys.VALUE) : -1 - keys.U32.size].decode(errors="backslashreplace")
            join = self._joins.get(join_id)
            member = keys.U32.unpack(key[-keys.U32.size :])[0]
            if join is not None and member < join.size:
                self._rows[key] = raw
                arrived[join_id].add(member)
        self._restore_values(arrived)
        waiters: Counter[str] = Counter()
        for message_id, record in self._records.items():
            wait = record.extras.wait if record.extras is not None else None
            if wait is None or wait.join_id not in self._joins:
                continue
            if (
                record.stage != Stage.DONE or record.flags & Flag.PAYLOAD_KEPT
            ):  # it may need the values again
                waiters[wait.join_id] += 1
            if record.stage == Stage.WAITING:
                self._rows[keys.WAITER + wait.join_id.encode() + b"\x00" + message_id.encode()] = (
                    b""
                )
        for join_id, join in self._joins.items():
            missing = join.arrived_count - len(arrived[join_id])
            if missing > 0:
                self._lose(
                    "values",
                    join_id,
                    f"{missing} values of the join are lost; what waits for it does not go on",
                )
            join.arrived_count = len(arrived[join_id])
            join.waiter_count = waiters[join_id]
            join.is_complete = join.arrived_count == join.size and join.cause is None
            self._rows[keys.JOIN + join_id.encode()] = joins.encode_join(join)
            if join.cause is not None:
                self._remind(join.cause.until_ms, timetable.JOIN, join_id)
            if join.is_complete or join.cause is not None:
                self._remind(_AT_ONCE_MS, timetable.JOIN, join_id)

    def _restore_values(self, arrived: dict[str, set[int]]) -> None:
        """Take a lost value of a join from the result of its member."""
        for message_id, record in self._records.items():
            place = record.extras.place if record.extras is not None else None
            if place is None or record.stage != Stage.DONE or record.state != "SUCCESS":
                continue
            join_id, member = place
            join = self._joins.get(join_id)
            if (
                join is None
                or member >= join.size
                or member in arrived[join_id]
                or record.flags & Flag.NOTHING_KEPT
            ):
                continue
            value = joins.VALUE + payloads.read(self._txn, message_id, record)
            self._rows[keys.VALUE + join_id.encode() + b"\x00" + keys.U32.pack(member)] = value
            arrived[join_id].add(member)

    def _write_queues(self) -> None:
        """Count what each queue has, and have what is ready stand in it."""
        known: dict[str, QueueRecord] = {}
        for key, raw in self._family(keys.QUEUE):
            name = key[len(keys.QUEUE) :].decode(errors="backslashreplace")
            try:
                known[name] = records.decode_queue(key, raw)
            except CorruptRecord as error:
                self._lose("options of queue", name, str(error))
        before = {
            name: (one.ready_count, one.leased_count, one.scheduled_count)
            for name, one in known.items()
        }
        for one in known.values():
            one.ready_count = one.leased_count = one.scheduled_count = one.ready_bytes = 0
        ready: list[tuple[str, Record]] = []
        for message_id, record in self._records.items():
            if record.stage in _ENDED or record.stage == Stage.WAITING:
                continue
            if record.queue not in known:
                known[record.queue] = QueueRecord()
                self._lose("options of queue", record.queue, "its record cannot be read")
            counts = known[record.queue]
            counts.last_seq = max(counts.last_seq, record.seq)
            if record.stage == Stage.SCHEDULED:
                counts.scheduled_count += 1
            elif record.stage in _LEASED:
                counts.leased_count += 1
            else:
                ready.append((message_id, record))
                counts.ready_count += 1
                counts.ready_bytes += record.size
        for message_id, record in sorted(ready, key=lambda one: one[1].seq):
            if queue.ready_key(record) in self._rows:
                # Two have one number: one of the records is old.
                known[record.queue].last_seq += 1
                record.seq = known[record.queue].last_seq
            self._rows[queue.ready_key(record)] = message_id.encode()
        for name, counts in known.items():
            self._rows[keys.QUEUE + name.encode()] = records.encode_queue(counts)
            if counts.options.expires_ms:
                self._remind_once(self._now_ms + counts.options.expires_ms, timetable.IDLE, name)
            had = sum(before.get(name, (0, 0, 0)))
            has = counts.ready_count + counts.leased_count + counts.scheduled_count
            if has < had:
                self._lose(
                    "messages of queue",
                    name,
                    f"it had {had} messages that had not ended, {has} are left",
                )

    def _write_records(self) -> None:
        unique = {key: raw.decode(errors="replace") for key, raw in self._family(keys.UNIQUE)}
        for message_id, record in self._records.items():
            name = message_id.encode()
            has_ended = record.stage in _ENDED
            self._rows[keys.MESSAGE + name] = records.encode(record)
            if record.stage in _LEASED:
                held = keys.LEASE + record.session.encode() + b"\x00" + name
                self._rows[held] = keys.U32.pack(record.attempt)
            elif record.stage == Stage.DEAD:
                self._rows[keys.DEAD + keys.U64.pack(record.changed_ms) + name] = b""
            elif record.stage == Stage.SCHEDULED:
                self._remind(record.eta_ms, timetable.DUE, message_id)
            if not has_ended and record.expires_ms:
                self._remind(record.expires_ms, timetable.EXPIRES, message_id)
            if record.stage == Stage.DONE and (
                record.result_ttl_ms >= 0 or record.flags & Flag.NOTHING_KEPT
            ):
                self._remind_once(_AT_ONCE_MS, timetable.FORGET, message_id)
            extras = record.extras
            if extras is None:
                continue
            for row in index.origins(message_id, extras):
                self._rows[row] = b""
            if not has_ended:
                for row in index.labels(message_id, extras):
                    self._rows[row] = b""
            if extras.unique_key and _may_hold(record, extras.unique_scope):
                key = keys.UNIQUE + extras.unique_key.encode()
                if unique.get(key, message_id) == message_id or key not in self._rows:
                    self._rows[key] = name

    def _write_workflows(self) -> None:
        running: Counter[str] = Counter()
        failed: Counter[str] = Counter()
        for record in self._records.values():
            workflow_id = record.extras.workflow_id if record.extras is not None else ""
            if record.stage not in _ENDED:
                running[workflow_id] += 1
            elif record.stage == Stage.DEAD or record.flags & Flag.PAYLOAD_KEPT:
                failed[workflow_id] += 1
        for key, raw in self._family(keys.WORKFLOW):
            name = key[len(keys.WORKFLOW) :].decode(errors="backslashreplace")
            try:
                workflow = workflows.decode_workflow(key, raw)
            except CorruptRecord as error:
                self._lose("workflow", name, str(error))
                continue
            ended_count = workflow.message_count - running[name]
            if ended_count > workflow.ended_count:
                # What is lost does not run any more, and did not succeed.
                workflow.failed_count += ended_count - workflow.ended_count
            workflow.message_count = max(workflow.message_count, running[name])
            workflow.ended_count = workflow.message_count - running[name]
            workflow.failed_count = min(
                max(workflow.failed_count, failed[name]), workflow.ended_count
            )
            self._rows[key] = workflows.encode_workflow(workflow)
            if not running[name]:
                self._remind_once(_AT_ONCE_MS, timetable.WORKFLOW, name)

    def _keep_entries(self) -> None:
        def remind(key: bytes, raw: bytes) -> None:
            entry = periodic.decode(key, raw)
            if entry.next_ms and not entry.paused_ms:
                self._remind(entry.next_ms, timetable.PERIODIC, key[len(keys.ENTRY) :].decode())

        self._keep(keys.ENTRY, "schedule", remind)

    def _keep_routes(self) -> None:
        self._keep(keys.EXCHANGE, "exchange", routes.check_row)
        self._keep(keys.BINDING, "binding", routes.check_row)

    def _keep(self, family: bytes, what: str, look: Callable[[bytes, bytes], None]) -> None:
        for key, raw in self._family(family):
            try:
                look(key, raw)
            except CorruptRecord as error:
                self._lose(what, key[len(family) :].decode(errors="backslashreplace"), str(error))
            else:
                self._rows[key] = raw

    def _tell_missing(self) -> None:
        """Name each message that other rows tell of and whose record cannot be read."""
        told = {one.name for one in self._lost if one.what == "message"}
        named: dict[str, str] = {}

        def note(raw_id: bytes, where: str) -> None:
            named.setdefault(raw_id.decode(errors="backslashreplace"), where)

        for key, raw in self._family(keys.READY):
            name = key[len(keys.READY) :].split(b"\x00", 1)[0].decode(errors="backslashreplace")
            note(raw, f"it waited in queue {name!r}; its record cannot be read")
        for key, _ in self._family(keys.LEASE):
            note(key.rpartition(b"\x00")[2], "a worker had it; its record cannot be read")
        for key, _ in self._family(keys.DEAD):
            note(key[len(keys.DEAD) + 8 :], "it was a dead letter; its record cannot be read")
        for family, tail in (
            (keys.PAYLOAD, 1 + keys.U32.size),
            (keys.STATUS, 0),
            (keys.ERRBACKS, 0),
        ):
            for key, _ in self._family(family):
                raw_id = key[len(family) : len(key) - tail]
                note(raw_id, "its record cannot be read")
        for family in (keys.INDEX, keys.WAITER):
            for key, _ in self._family(family):
                note(key.rpartition(b"\x00")[2], "its record cannot be read")
        for name, why in sorted(named.items()):
            if name not in self._records and name not in told:
                self._lose("message", name, why)


def _may_hold(record: Record, scope: int) -> bool:
    if scope == UniqueScope.TIME:
        return True
    if scope == UniqueScope.START:
        return record.stage not in (*_ENDED, Stage.STARTED)
    return record.stage not in _ENDED
