"""A lease: a message that one worker session has, and what becomes of it.

    l <session> 0 <id>  → attempt (4 bytes)

A lease ends by its settle, by being released unstarted, or with its session. What it means then for
the message is one rule (`_lose`): a started message that was acknowledged by its start is never run
again, any other goes back to the head of its queue.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from qbroker_server.core import (
    dead,
    index,
    joins,
    keys,
    limits,
    message,
    payloads,
    publish,
    queue,
    results,
    timetable,
    unique,
    workflows,
)
from qbroker_server.core.effects import Cancel, Effects, SessionOpened
from qbroker_server.core.errors import CoreError, Invalid
from qbroker_server.core.names import check_name
from qbroker_server.core.ports import ReadTxn, Txn
from qbroker_server.core.records import EndReason, Extras, Flag, Record, Stage


class Outcome(IntEnum):
    """What a worker says of a task. The numbers are on the wire."""

    SUCCESS = 1
    FAILURE = 2
    WORKER_LOST = 3
    IGNORED = 4
    REJECTED = 5
    REVOKED = 6
    RETRY = 7
    TIMEOUT = 8
    REPLACED = 9


_STATES = {
    Outcome.SUCCESS: "SUCCESS",
    Outcome.FAILURE: "FAILURE",
    Outcome.WORKER_LOST: "FAILURE",
    Outcome.IGNORED: "",
    Outcome.REJECTED: "FAILURE",
    Outcome.REVOKED: "REVOKED",
    Outcome.TIMEOUT: "FAILURE",
}
_REASONS = {
    Outcome.WORKER_LOST: EndReason.WORKER_LOST,
    Outcome.REJECTED: EndReason.REJECTED,
    Outcome.REVOKED: EndReason.REVOKED,
}


@dataclass(frozen=True, slots=True)
class LeaseId:
    """Which delivery of which message: the attempt tells a late answer from the newest."""

    id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Start(LeaseId):
    """The task runs."""

    told: bytes
    """A result that tells where, kept while it runs, for messages whose publisher wants to see that."""


# Nobody changes one, but to have that checked would make each five times as dear.
@dataclass(slots=True)
class Settle:
    """The worker's answer for a task: all of it is applied, or it is refused whole."""

    id: str
    attempt: int
    outcome: int
    result: bytes
    requeue: bool = False
    follow_ups: tuple[publish.New, ...] = ()
    message: publish.NewMessage | None = None
    """With RETRY: what takes the message's place, under its id; None: nothing does. With REPLACED: always."""
    eta_ms: int = 0
    """With RETRY: when it is due again."""
    detail: str = ""
    """How it ended, in a line."""
    added_members: tuple[publish.NewMessage, ...] = ()
    """More members for the join that the message is a member of."""
    fault: Invalid | None = None
    """Why it cannot be applied as the worker meant it."""

    @property
    def size(self) -> int:
        """Payload bytes it stores."""
        size = len(self.result) + (len(self.message.payload) if self.message is not None else 0)
        for new in (*self.follow_ups, *self.added_members):
            size += new.size
        return size

    def check(self) -> None:
        """Raise Invalid when it breaks a rule of its form."""
        if self.fault is not None:
            raise self.fault
        if self.message is not None:
            publish.check(self.message)
        elif self.outcome == Outcome.REPLACED:
            raise Invalid(f"message {self.id!r} was replaced by nothing")
        waits = self.message is not None and self.outcome == Outcome.REPLACED
        waiters = (self.message,) if waits and self.message is not None else ()
        for new in self.follow_ups:
            if isinstance(new, publish.NewWorkflow):
                publish.check_workflow(new, waiters=_waiting_for(new, waiters))
            else:
                publish.check(new)
                publish.check_alone(new)
        for new in self.added_members:
            publish.check(new)
        if waiters and waiters[0].extras is not None and waiters[0].extras.wait is not None:
            wanted = waiters[0].extras.wait.join_id
            if not any(
                join.id == wanted
                for new in self.follow_ups
                if isinstance(new, publish.NewWorkflow)
                for join in new.joins
            ):
                raise Invalid(
                    f"what replaces message {self.id!r} waits for {wanted!r}, which is not a join of its follow-ups"
                )


def _waiting_for(
    workflow: publish.NewWorkflow, waiters: tuple[publish.NewMessage, ...]
) -> tuple[publish.NewMessage, ...]:
    """Those of the messages that wait for a join of the workflow."""
    own = {join.id for join in workflow.joins}
    return tuple(
        [
            replace(new, extras=replace(new.extras, place=None))
            for new in waiters
            if new.extras is not None
            and new.extras.wait is not None
            and new.extras.wait.join_id in own
        ]
    )


def _key(session: str, message_id: str) -> bytes:
    return keys.LEASE + session.encode() + b"\x00" + message_id.encode()


def grant(txn: Txn, message_id: str, record: Record, session: str, now_ms: int) -> None:
    """Lease a message that has just left its queue to a session."""
    record.stage = Stage.LEASED
    record.session = session
    record.attempt += 1
    record.changed_ms = now_ms
    record.lane = b""
    message.save(txn, message_id, record)
    txn.put(_key(session, message_id), keys.U32.pack(record.attempt))


def held(txn: ReadTxn, session: str, after_id: str = "") -> list[LeaseId]:
    """Up to a step's worth of the session's leases, in order of id, from behind `after_id`."""
    prefix = keys.LEASE + session.encode() + b"\x00"
    start = prefix + (after_id.encode() + b"\x00" if after_id else b"")
    return [
        LeaseId(key[len(prefix) :].decode(), keys.U32.unpack(raw)[0])
        for key, raw in txn.scan(start, keys.after(prefix), limits.STEP_ITEMS_MAX)
    ]


def count(txn: ReadTxn, session: str) -> int:
    """How many leases the session holds."""
    total, after_id = 0, ""
    while leases := held(txn, session, after_id):
        total += len(leases)
        after_id = leases[-1].id
    return total


def sessions(txn: ReadTxn) -> list[str]:
    """The sessions that hold leases, read with one look each."""
    found: list[str] = []
    start, stop = keys.LEASE, keys.after(keys.LEASE)
    while rows := txn.scan(start, stop, 1):
        session, _, _ = rows[0][0][len(keys.LEASE) :].partition(b"\x00")
        found.append(session.decode())
        start = keys.LEASE + session + b"\x01"
    return found


def _find(txn: Txn, session: str, lease: LeaseId | Settle, effects: Effects) -> Record | None:
    """The record of what is leased, or None when the lease is not the session's newest any more."""
    record = message.find(txn, lease.id, effects)
    if record is None:
        # When its record was damaged, the lease stands alone: here it ends.
        if txn.delete(_key(session, lease.id)):
            effects.free(session)
        return None
    if (
        record.attempt != lease.attempt
        or record.session != session
        or record.stage not in (Stage.LEASED, Stage.STARTED)
    ):
        return None
    return record


def _drop(txn: Txn, message_id: str, record: Record, effects: Effects) -> None:
    txn.delete(_key(record.session, message_id))
    effects.queue_to_change(txn, record.queue).leased_count -= 1
    effects.free(record.session, record)
    # Who looks at it later asks which worker it was, and by then nobody knows the session any more.
    record.session = effects.worker_name(record.session)


def _return(txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects) -> None:
    queue.put_back(txn, message_id, record, effects)
    if 0 < record.expires_ms <= now_ms:
        # The reminder of that time came while a worker had it, and was of no use then.
        timetable.remind(txn, record.expires_ms, timetable.EXPIRES, message_id, effects)


def _lose(
    txn: Txn,
    message_id: str,
    record: Record,
    now_ms: int,
    effects: Effects,
    *,
    detail: str,
    result: bytes = b"",
) -> None:
    """The lease ended and nobody answered for the task: run it again, or end it, by its policy."""
    was_started = record.stage == Stage.STARTED
    _drop(txn, message_id, record, effects)
    if record.flags & Flag.REVOKING:
        _revoked(txn, message_id, record, now_ms, effects)
        return
    if not was_started:
        _return(txn, message_id, record, now_ms, effects)
        return
    _remember(record, "LOST", now_ms, detail)
    if not record.flags & Flag.ACK_LATE:
        results.end(
            txn,
            message_id,
            record,
            now_ms,
            effects,
            reason=EndReason.WORKER_LOST,
            state="FAILURE",
            result=result,
            detail=detail,
        )
        return
    _again(txn, message_id, record, now_ms, effects, detail=detail, result=result)


def _again(
    txn: Txn,
    message_id: str,
    record: Record,
    now_ms: int,
    effects: Effects,
    *,
    detail: str,
    result: bytes,
) -> None:
    """Run the task again after it took its worker with it, unless that has happened too often."""
    record.deaths += 1
    record.flags |= Flag.REDELIVERED
    options = effects.queue(txn, record.queue).options
    deaths_max = record.deaths_max or options.deaths_max or effects.policy.deaths_max
    if record.deaths < deaths_max:
        _return(txn, message_id, record, now_ms, effects)
        return
    dead.bury(
        txn,
        message_id,
        record,
        now_ms,
        effects,
        reason=EndReason.MAX_DELIVERIES,
        state="FAILURE",
        result=result,
        detail=f"{detail} That was death {record.deaths} of {deaths_max} (max_deliveries).",
    )


def _revoked(
    txn: Txn, message_id: str, record: Record, now_ms: int, effects: Effects, result: bytes = b""
) -> None:
    results.end(
        txn,
        message_id,
        record,
        now_ms,
        effects,
        reason=EndReason.REVOKED,
        state="REVOKED",
        result=result,
        detail=record.detail or "revoked",
    )


def _remember(record: Record, how: str, now_ms: int, line: str) -> None:
    if record.extras is None:
        record.extras = Extras()
    record.extras.remember(record.attempt, how, now_ms, record.session, line)


@dataclass(frozen=True, slots=True)
class Register:
    """A worker's session begins, or comes back on a new stream with what it still holds.

    Leases it does not name were lost on the way and return to their queues. Answers those it names
    that are not its own any more.
    """

    session: str
    name: str
    queues: tuple[str, ...]
    tasks: frozenset[str]
    prefetch_count: int
    held: tuple[LeaseId, ...]

    @property
    def cost(self) -> tuple[int, int]:
        return 1 + len(self.held), 0

    def check(self) -> None:
        """Raise Invalid, with a sentence, when it breaks a rule of its form."""
        check_name("session id", self.session, bytes_max=limits.SESSION_BYTES_MAX)
        check_name("worker name", self.name, is_optional=True)
        _check_queues(self.queues)
        if len(self.held) > limits.REPORT_ITEMS_MAX:
            raise Invalid(
                f"{len(self.held)} held leases are more than {limits.REPORT_ITEMS_MAX}; release some before"
            )
        _check_prefetch(self.prefetch_count)

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> list[LeaseId]:
        self.check()
        named = {lease.id: lease for lease in self.held}
        kept: set[str] = set()
        after_id = ""
        while leases := held(txn, self.session, after_id):
            for lease in leases:
                if named.get(lease.id) == lease:
                    kept.add(lease.id)
                    _tell_revoked(txn, self.session, lease, effects)
                elif record := _find(txn, self.session, lease, effects):
                    _lose(
                        txn,
                        lease.id,
                        record,
                        now_ms,
                        effects,
                        detail="The worker came back without it.",
                    )
            after_id = leases[-1].id
        for name in self.queues:
            effects.queue_to_change(txn, name)
        effects.opened.append(
            SessionOpened(
                self.session, self.name, self.queues, self.tasks, self.prefetch_count, len(kept)
            )
        )
        # Its leases were counted afresh just now, and what it wanted before is past.
        effects.freed.pop(self.session, None)
        effects.prefetch.pop(self.session, None)
        effects.consuming.pop(self.session, None)
        effects.knowing.pop(self.session, None)
        effects.unwanted.pop(self.session, None)
        effects.draining = [session for session in effects.draining if session != self.session]
        return [lease for lease in self.held if lease.id not in kept]


def _tell_revoked(txn: Txn, session: str, lease: LeaseId, effects: Effects) -> None:
    """Tell a worker that comes back of what was revoked meanwhile: its link may have broken before it heard."""
    record = _find(txn, session, lease, effects)
    if record is not None and record.flags & Flag.REVOKING:
        is_terminated = bool(record.flags & Flag.TERMINATING)
        # Which signal it was is not kept; this one is followed by SIGKILL where it is not heeded.
        effects.cancels.append(Cancel(session, lease.id, lease.attempt, is_terminated, "SIGTERM"))


@dataclass(frozen=True, slots=True)
class Consume:
    """A worker takes from these queues from now on, and from no others."""

    session: str
    queues: tuple[str, ...]
    tasks: frozenset[str] | None = None
    """It knows these from now on, and no others; None: those it knew."""

    @property
    def cost(self) -> tuple[int, int]:
        return 1 + len(self.queues), 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> None:
        _check_queues(self.queues)
        for name in self.queues:
            effects.queue_to_change(txn, name)
        effects.consuming[self.session] = self.queues
        if self.tasks is not None:
            effects.knowing[self.session] = self.tasks


def _check_queues(names: tuple[str, ...]) -> None:
    for name in names:
        check_name("queue name", name)


def _check_prefetch(prefetch_count: int) -> None:
    if not 0 <= prefetch_count <= limits.PREFETCH_COUNT_MAX:
        raise Invalid(f"prefetch_count {prefetch_count!r} is not 0 to {limits.PREFETCH_COUNT_MAX}")


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of a report: all of it is stored, but for these."""

    lost: tuple[LeaseId, ...]
    """Settles of leases that the session has no more."""
    refusals: tuple[tuple[LeaseId, CoreError], ...]
    """Settles that break a rule: their task has ended as a failure that says so, nothing else of them was kept."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker session has to say, in one transaction: started, settled, given back, wanted."""

    session: str
    starts: Sequence[LeaseId] = ()
    """What runs now; a Start says more of it."""
    settles: Sequence[Settle] = ()
    releases: Sequence[LeaseId] = ()
    prefetch_count: int | None = None
    is_draining: bool = False
    unwanted: frozenset[str] | None = None
    """Tasks of which it is to be given none for now, when that is another set than before."""

    @property
    def cost(self) -> tuple[int, int]:
        items = len(self.starts) + len(self.settles) + len(self.releases)
        return 1 + items, sum([settle.size for settle in self.settles])

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> Reported:
        session = self.session
        if self.prefetch_count is not None:
            _check_prefetch(self.prefetch_count)
        lost: list[LeaseId] = []
        refusals: list[tuple[LeaseId, CoreError]] = []
        for start in self.starts:
            record = _find(txn, session, start, effects)
            if record is not None and record.stage == Stage.LEASED:
                record.stage = Stage.STARTED
                record.changed_ms = now_ms
                if record.flags & Flag.TRACK_STARTED:
                    # What an earlier try left, its reason to be tried again, is past.
                    payloads.drop_status(txn, start.id, record)
                    record.state = ""
                    if isinstance(start, Start):
                        payloads.put_status(txn, start.id, record, start.told)
                message.save(txn, start.id, record)
                effects.changed[start.id] = record
        for settle in self.settles:
            record = _find(txn, session, settle, effects)
            if record is None:
                lost.append(LeaseId(settle.id, settle.attempt))
                continue
            try:
                settle.check()
            except Invalid as error:
                # The worker would only say the same again, and its slot would never be free.
                refusals.append((LeaseId(settle.id, settle.attempt), error))
                _drop(txn, settle.id, record, effects)
                results.end(
                    txn,
                    settle.id,
                    record,
                    now_ms,
                    effects,
                    reason=EndReason.SETTLED,
                    state="FAILURE",
                    detail=f"The worker's answer was refused: {error}.",
                )
                continue
            _settle(txn, settle, record, now_ms, effects)
        for release in self.releases:
            record = _find(txn, session, release, effects)
            if record is not None:
                _lose(
                    txn,
                    release.id,
                    record,
                    now_ms,
                    effects,
                    detail="The worker gave it back after it had started.",
                )
        if self.prefetch_count is not None:
            effects.prefetch[session] = self.prefetch_count
        if self.unwanted is not None:
            effects.unwanted[session] = self.unwanted
        if self.is_draining:
            effects.draining.append(session)
        return Reported(tuple(lost), tuple(refusals))


def _settle(txn: Txn, settle: Settle, record: Record, now_ms: int, effects: Effects) -> None:
    message_id = settle.id
    if settle.outcome == Outcome.WORKER_LOST:
        # The process that had it is dead, so it had been started, whether or not the report of that arrived.
        record.stage = Stage.STARTED
        _lose(
            txn,
            message_id,
            record,
            now_ms,
            effects,
            detail=settle.detail or "The worker process that ran it died.",
            result=settle.result,
        )
        return
    _drop(txn, message_id, record, effects)
    outcome = Outcome(settle.outcome)
    is_late = record.flags & Flag.ACK_LATE
    for new in settle.follow_ups:
        publish.store_follow_up(txn, new, now_ms, effects)
    for added in settle.added_members:
        _add_member(txn, record, added, now_ms, effects)
    if outcome == Outcome.REPLACED:
        _take_over(txn, settle, record, now_ms, effects)
    elif outcome == Outcome.RETRY:
        _retry(txn, settle, record, now_ms, effects)
    elif record.flags & Flag.REVOKING and (settle.requeue or outcome == Outcome.REVOKED):
        _revoked(txn, message_id, record, now_ms, effects)
    elif settle.requeue:
        record.flags |= Flag.REDELIVERED
        _return(txn, message_id, record, now_ms, effects)
    elif outcome == Outcome.TIMEOUT and is_late and record.flags & Flag.REQUEUE_ON_TIMEOUT:
        _remember(record, "TIMEOUT", now_ms, settle.detail)
        if record.flags & Flag.REVOKING:
            _revoked(txn, message_id, record, now_ms, effects)
            return
        _again(txn, message_id, record, now_ms, effects, detail=settle.detail, result=settle.result)
    elif outcome == Outcome.REJECTED or (
        outcome == Outcome.FAILURE and is_late and record.flags & Flag.REJECT_ON_FAILURE
    ):
        _remember(record, outcome.name, now_ms, settle.detail)
        dead.bury(
            txn,
            message_id,
            record,
            now_ms,
            effects,
            reason=EndReason.REJECTED,
            state=_STATES[outcome],
            result=settle.result,
            detail=settle.detail or "rejected by the task",
        )
    else:
        state, result = _STATES[outcome], settle.result
        if outcome == Outcome.IGNORED and record.state and record.flags & Flag.HAS_STATUS:
            # A task that says itself how it ended, and then has its end ignored.
            state, result = record.state, payloads.read_status(txn, message_id, record)
        results.end(
            txn,
            message_id,
            record,
            now_ms,
            effects,
            reason=_REASONS.get(outcome, EndReason.SETTLED),
            state=state,
            result=result,
            detail=settle.detail if outcome in _REASONS else "",
            line=settle.detail,
        )


def _add_member(
    txn: Txn, record: Record, new: publish.NewMessage, now_ms: int, effects: Effects
) -> None:
    """One more member for the join that `record` is a member of; without one, a message like any other."""
    if publish.is_known(txn, new):
        return
    place = record.extras.place if record.extras is not None else None
    join = joins.of(effects).find(txn, place[0], effects) if place is not None else None
    if record.extras is not None and place is not None and join is not None:
        extras = new.extras or Extras()
        extras.place = (place[0], join.size)
        extras.workflow_id = record.extras.workflow_id
        join.size += 1
        workflows.grow(txn, extras.workflow_id, effects)
        new = replace(new, extras=extras)
    publish.store(txn, new, now_ms, effects)


def _take_over(txn: Txn, settle: Settle, record: Record, now_ms: int, effects: Effects) -> None:
    """`Task.replace`: another message under the same id, at the same place of the same join."""
    new = settle.message
    assert new is not None, "it was checked"
    if record.flags & Flag.REVOKING:
        _revoked(txn, settle.id, record, now_ms, effects)
        return
    before = record.extras
    if before is not None and before.wait is not None:
        joins.let_go(txn, settle.id, record, effects)
    extras = new.extras or Extras()
    if before is not None:
        extras.place, extras.workflow_id = before.place, before.workflow_id
        extras.root_id, extras.history = before.root_id, before.history
        index.end(txn, settle.id, before)
        unique.let_go(txn, settle.id, record)
    payloads.drop_status(txn, settle.id, record)
    if new.route is not None:
        # One that nothing takes stays in the queue it came from.
        taken = effects.routes.queues(txn, new.route)
        new = replace(new, queue=taken[0] if taken else record.queue, route=None)
    _replace(txn, settle.id, record, new, effects)
    record.extras = extras
    record.task, record.flags = new.task, new.flags | record.flags & Flag.PAYLOAD_APART
    record.deaths = record.retries = 0
    record.deaths_max = new.deaths_max
    record.state, record.session, record.lane = "", "", b""
    record.changed_ms = now_ms
    record.eta_ms = new.eta_ms
    txn.delete(keys.ERRBACKS + settle.id.encode())
    if new.errbacks:
        publish.keep_errbacks(txn, new, record, now_ms, effects)
    index.add(txn, settle.id, extras)
    publish.place(txn, settle.id, record, now_ms, effects)


def _replace(
    txn: Txn, message_id: str, record: Record, new: publish.NewMessage, effects: Effects
) -> None:
    """Put another message into a record that stands in no queue; what it is labelled with and limited by stays."""
    payloads.attach(txn, message_id, record, new.payload)
    if new.errbacks:
        publish.keep_errbacks(txn, new, record, record.published_ms, effects)
    record.size = len(new.payload)
    # What came through an exchange is tried again in the queue it came to.
    record.queue = new.queue or record.queue
    record.priority = new.priority
    queue.set_expires(record, new.expires_ms)
    wire_flags = Flag.IGNORE_RESULT | Flag.STORE_ERRORS
    record.flags = record.flags & ~wire_flags | new.flags & wire_flags


def _retry(txn: Txn, settle: Settle, record: Record, now_ms: int, effects: Effects) -> None:
    """The same message, due again: same id, same record, one attempt more."""
    _remember(record, "RETRY", now_ms, settle.detail)
    if record.flags & Flag.REVOKING:
        _revoked(txn, settle.id, record, now_ms, effects)
        return
    if settle.message is not None:
        _replace(txn, settle.id, record, settle.message, effects)
    record.retries += 1
    record.state = "RETRY"
    record.changed_ms = now_ms
    if settle.result:
        payloads.put_status(txn, settle.id, record, settle.result)
    effects.changed[settle.id] = record
    if settle.eta_ms > now_ms:
        record.flags |= Flag.LEFT_TO_RETRY
        record.eta_ms = settle.eta_ms
    queue.arrive(txn, settle.id, record, now_ms, effects)


@dataclass(frozen=True, slots=True)
class ReturnLeases:
    """A session is over: end its leases, up to a step's worth; answers whether there may be more."""

    session: str
    detail: str

    @property
    def cost(self) -> tuple[int, int]:
        return limits.STEP_ITEMS_MAX, 0

    def apply(self, txn: Txn, now_ms: int, effects: Effects) -> bool:
        leases = held(txn, self.session)
        for lease in leases:
            record = _find(txn, self.session, lease, effects)
            if record is None:
                # The row says something else than the record, which counts.
                txn.delete(_key(self.session, lease.id))
                continue
            # The worker may have begun it, and died before it could say so.
            record.flags |= Flag.REDELIVERED
            _lose(txn, lease.id, record, now_ms, effects, detail=self.detail)
        if len(leases) == limits.STEP_ITEMS_MAX:
            return True
        effects.closed.append(self.session)
        return False
