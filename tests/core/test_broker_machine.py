"""Random histories of a broker against a model that fits in the head.

The model knows where each message is, who has it, and how often it was given out. It does not know how
messages are chosen: it checks each delivery against what may be given, and that nothing that may be given
was left behind. It does not predict how the members of a workflow move each other (test_joins.py does): it reads
where they are, and `check.faults` compares the workflow's sums with its members.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from qbroker_server.core import dead
from qbroker_server.core.effects import Policy
from qbroker_server.core.errors import Conflict, Invalid, NotFound
from qbroker_server.core.lease import LeaseId, Outcome, ReturnLeases, Settle
from qbroker_server.core.publish import NewJoin, NewMessage, NewWorkflow, copy_id
from qbroker_server.core.queue import Move, Pause, Purge, Remove, Resume
from qbroker_server.core.records import Extras, Flag, Stage, Wait
from qbroker_server.core.results import Forget
from qbroker_server.core.retry import RetryWorkflow
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.routes import Binding, Exchange, Route
from qbroker_server.core.routing import Declare
from qbroker_server.core.schedule import Sweep
from qbroker_server.engines.lmdb import LmdbEngine
from tests.support.scene import Scene, new

IDS = st.sampled_from([f"m{name}" for name in "0123456789xyz"])
WORKFLOWS = st.sampled_from([1, 2])
MEMBERS = [f"{name}{n}" for n in (1, 2) for name in "abc"]
ANY_IDS = IDS | st.sampled_from(MEMBERS)
MEMBER_TASK = "t0"
"""Every worker knows it."""
TASKS = st.sampled_from(["t1", "t2", "t3"])
QUEUES = st.sampled_from(["q1", "q2"])
SESSIONS = st.sampled_from(["s1", "s2"])
DELAYS = st.integers(1, 50)
SIZES = st.sampled_from([0, 10, 2_000, 20_000])
WAYS = tuple(Binding("both", name) for name in ("q1", "q2"))
BACK = st.integers(0, 9)
"""Which of the leases ever given is meant, counted from the newest: some are held, some are stale."""

POLICY = Policy(result_ttl_ms=100, memory_ms=40, deaths_max=2)


@dataclass
class Message:
    """What the model knows of a message."""

    task: str
    queue: str
    priority: int
    is_late: bool
    is_result_ignored: bool
    eta_ms: int
    expires_ms: int
    place: int
    stage: Stage = Stage.QUEUED
    session: str = ""
    attempt: int = 0
    deaths: int = 0
    forget_ms: int = 0
    is_revoking: bool = False
    is_member: bool = False
    """Of a workflow: the model reads where it is."""

    @property
    def order(self) -> tuple[int, int]:
        """First come, first served, but for priority."""
        return -self.priority, self.place


@dataclass
class Worker:
    """What the model knows of a worker's session."""

    queues: frozenset[str]
    tasks: frozenset[str]
    prefetch_count: int
    is_draining: bool = False


@dataclass
class Model:
    """Everything there is."""

    messages: dict[str, Message] = field(default_factory=dict)
    workers: dict[str, Worker] = field(default_factory=dict)
    """Those whose stream is open."""
    paused: set[str] = field(default_factory=set)
    place: int = 0

    def next_place(self) -> int:
        self.place += 1
        return self.place

    def dead(self) -> list[str]:
        return sorted(id_ for id_, m in self.messages.items() if m.stage == Stage.DEAD)

    def leased(self) -> list[str]:
        return sorted(
            id_ for id_, m in self.messages.items() if m.stage in (Stage.LEASED, Stage.STARTED)
        )

    def held(self, session: str) -> dict[str, Message]:
        return {
            id_: message
            for id_, message in self.messages.items()
            if message.session == session and message.stage in (Stage.LEASED, Stage.STARTED)
        }

    def may_take(self, session: str, message: Message) -> bool:
        worker = self.workers.get(session)
        return (
            worker is not None and message.queue in worker.queues and message.task in worker.tasks
        )

    def has_room(self, session: str) -> bool:
        worker = self.workers[session]
        return not worker.is_draining and len(self.held(session)) < worker.prefetch_count

    def end(self, message: Message, now_ms: int, *, is_kept: bool) -> None:
        message.stage, message.session = Stage.DONE, ""
        is_kept = is_kept and not message.is_result_ignored
        message.forget_ms = now_ms + (POLICY.result_ttl_ms if is_kept else POLICY.memory_ms)

    def lose(self, message: Message, now_ms: int, *, was_started: bool) -> None:
        """Its worker is gone, or has given it back."""
        message.session = ""
        if message.is_revoking:
            self.end(message, now_ms, is_kept=True)
            return
        if was_started and not message.is_late:
            self.end(message, now_ms, is_kept=True)
            return
        message.deaths += was_started
        message.stage = Stage.QUEUED
        if message.deaths >= POLICY.deaths_max:
            message.stage = Stage.DEAD

    def retry(self, message: Message, now_ms: int, eta_ms: int, changed: NewMessage | None) -> None:
        """Its task asked for another try."""
        message.session = ""
        if message.is_revoking:
            self.end(message, now_ms, is_kept=True)
            return
        if changed is not None:
            message.queue, message.priority = changed.queue, changed.priority
            message.expires_ms = changed.expires_ms
            message.is_result_ignored = bool(changed.flags & Flag.IGNORE_RESULT)
        if eta_ms > now_ms:
            message.eta_ms = eta_ms
        self.arrive(message, now_ms)

    def arrive(self, message: Message, now_ms: int) -> None:
        """It waits for its time or for a worker, unless it has expired."""
        if 0 < message.expires_ms <= now_ms:
            self.end(message, now_ms, is_kept=True)
        elif message.eta_ms > now_ms:
            message.stage = Stage.SCHEDULED
        else:
            message.stage, message.place = Stage.QUEUED, self.next_place()

    def replace(self, message: Message, now_ms: int, other: NewMessage) -> None:
        """Its task put another message in its place."""
        message.session = ""
        if message.is_revoking:
            self.end(message, now_ms, is_kept=True)
            return
        message.task, message.queue, message.priority = other.task, other.queue, other.priority
        message.is_late = bool(other.flags & Flag.ACK_LATE)
        message.is_result_ignored = bool(other.flags & Flag.IGNORE_RESULT)
        message.eta_ms, message.expires_ms = other.eta_ms, other.expires_ms
        message.deaths = 0
        self.arrive(message, now_ms)


class BrokerMachine(RuleBasedStateMachine):
    """Publishers, workers and time, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = self.make()
        self.model = Model()
        self.leases: list[tuple[str, LeaseId]] = []
        """Every lease ever given, and to whom."""

    def make(self) -> Scene:
        return Scene(policy=POLICY)

    @initialize(is_late=st.booleans(), prefetch_count=st.integers(1, 2))
    def begin(self, is_late: bool, prefetch_count: int) -> None:
        """Two workers and a few messages, so that no history is idle."""
        self.scene.do(Declare((Exchange("both", "fanout"),), (), WAYS))
        tasks = frozenset((MEMBER_TASK, "t1", "t2"))
        for session in ("s1", "s2"):
            self.model.workers[session] = Worker(frozenset(("q1", "q2")), tasks, prefetch_count)
            self.scene.register(
                session, queues=("q1", "q2"), tasks=tasks, prefetch_count=prefetch_count
            )
        self.publish(["m0", "m1"], "t1", "q1", 1, is_late, False, None, None, 10)
        self.publish(["m2"], "t2", "q2", 2, is_late, False, None, 30, 10)
        self.publish(["m3"], "t3", "q1", 0, is_late, False, 20, None, 2_000)

    # -- publishers ----------------------------------------------------------------------------

    @rule(
        ids=st.lists(IDS, min_size=1, max_size=5),
        task=TASKS,
        queue=QUEUES,
        priority=st.integers(0, 2),
        is_late=st.booleans(),
        is_result_ignored=st.booleans(),
        delay_ms=st.none() | DELAYS,
        expires_in_ms=st.none() | DELAYS,
        size=st.sampled_from([0, 10, 2_000, 20_000]),
    )
    def publish(
        self,
        ids: Sequence[str],
        task: str,
        queue: str,
        priority: int,
        is_late: bool,
        is_result_ignored: bool,
        delay_ms: int | None,
        expires_in_ms: int | None,
        size: int,
    ) -> None:
        now_ms = self.scene.now_ms
        eta_ms = now_ms + delay_ms if delay_ms else 0
        expires_ms = now_ms + expires_in_ms if expires_in_ms else 0
        flags = Flag.ACK_LATE * is_late | Flag.IGNORE_RESULT * is_result_ignored
        duplicates = []
        for index, id_ in enumerate(ids):
            if id_ in self.model.messages:
                duplicates.append(index)
                continue
            self.model.messages[id_] = Message(
                task,
                queue,
                (priority + index) % 3,
                is_late,
                is_result_ignored,
                eta_ms,
                expires_ms,
                self.model.next_place(),
                Stage.SCHEDULED if eta_ms else Stage.QUEUED,
            )

        published = self.scene.publish(
            *(
                new(
                    id_,
                    task=task,
                    queue=queue,
                    priority=(priority + index) % 3,
                    flags=flags,
                    eta_ms=eta_ms,
                    expires_ms=expires_ms,
                    payload=id_.encode() * size,
                )
                for index, id_ in enumerate(ids)
            )
        )

        assert published.refusals == ()
        assert list(published.duplicates) == duplicates
        self.check_deliveries()

    @rule(id_=IDS, task=TASKS, is_late=st.booleans(), size=st.sampled_from([10, 2_000, 20_000]))
    def broadcast(self, id_: str, task: str, is_late: bool, size: int) -> None:
        """A message for both queues, whose copies may share what they carry."""
        ids = {"q1": id_, "q2": copy_id(id_, "q2")}
        is_known = id_ in self.model.messages
        for queue, one in ids.items() if not is_known else ():
            past = self.model.messages.get(one)
            # Of one that was published before, and whose first copy is forgotten, the other may still be on its way.
            if past is None or past.stage == Stage.DONE:
                self.model.messages[one] = Message(
                    task, queue, 0, is_late, False, 0, 0, self.model.next_place()
                )
        # A queue that was removed has lost its binding.
        self.scene.do(Declare((), (), WAYS))
        flags = Flag.ACK_LATE * is_late
        message = new(id_, task=task, queue="", flags=flags, payload=id_.encode() * size)

        published = self.scene.publish(replace(message, route=Route("both", "")))

        assert published.refusals == ()
        assert published.duplicates == ((0,) if is_known else ())
        self.check_deliveries()

    @rule(
        number=WORKFLOWS,
        queue=QUEUES,
        body_queue=QUEUES,
        is_late=st.booleans(),
        delay_ms=st.sampled_from([0, 20]),
    )
    def publish_workflow(
        self, number: int, queue: str, body_queue: str, is_late: bool, delay_ms: int
    ) -> None:
        """A chord of two members and a body."""
        workflow_id, join_id = f"w{number}", f"j{number}"
        first, second, body = [f"{name}{number}" for name in "abc"]
        flags = Flag.ACK_LATE * is_late
        messages = tuple(
            replace(
                new(
                    id_,
                    task=MEMBER_TASK,
                    queue=queue if place else body_queue,
                    flags=flags,
                    payload=id_.encode() * 10,
                ),
                extras=Extras(
                    workflow_id=workflow_id,
                    place=place,
                    wait=None if place else Wait(join_id, True, True, delay_ms, 0),
                ),
            )
            for id_, place in ((first, (join_id, 0)), (second, (join_id, 1)), (body, None))
        )

        self.scene.publish(NewWorkflow(workflow_id, messages, (NewJoin(join_id, 2, True),)))

        self.check_deliveries()

    def empty(self, queue: str) -> None:
        """Leave nothing in the queue but its dead letters."""
        model, now_ms = self.model, self.scene.now_ms
        # What is given out as others end would have to end as well.
        self.pause(queue)
        for id_ in model.leased():
            message = model.messages[id_]
            if message.queue == queue:
                answer = Settle(id_, message.attempt, Outcome.SUCCESS, b"")
                self.scene.report(message.session, settles=[answer])
                model.end(message, now_ms, is_kept=True)
                self.check_deliveries()
        scheduled = [i for i, m in model.messages.items() if m.stage == Stage.SCHEDULED]
        self.revoke(frozenset(i for i in scheduled if model.messages[i].queue == queue), False)
        self.purge(queue)

    @rule(number=WORKFLOWS)
    def retry_workflow(self, number: int) -> None:
        try:
            self.scene.do(RetryWorkflow(f"w{number}"))
        except (Conflict, NotFound):
            return
        self.check_deliveries()

    @rule(queue=QUEUES, is_emptied=st.booleans())
    def remove_queue(self, queue: str, is_emptied: bool) -> None:
        if is_emptied:
            self.empty(queue)
        is_empty = not any(
            message.queue == queue and message.stage not in (Stage.DONE, Stage.DEAD, Stage.WAITING)
            for message in self.model.messages.values()
        )
        try:
            self.scene.do(Remove(queue))
        except Conflict:
            assert not is_empty
            return
        except NotFound:
            pass
        assert is_empty
        self.model.paused.discard(queue)

    @rule(queue=QUEUES)
    def purge(self, queue: str) -> None:
        waiting = [
            message
            for message in self.model.messages.values()
            if message.queue == queue and message.stage == Stage.QUEUED
        ]
        for message in waiting:
            self.model.end(message, self.scene.now_ms, is_kept=True)

        assert self.scene.do(Purge(queue)) == len(waiting)
        self.check_deliveries()

    @rule(id_=ANY_IDS)
    def forget(self, id_: str) -> None:
        message = self.model.messages.get(id_)
        memory_ms = self.scene.now_ms + POLICY.memory_ms
        record = self.scene.find(id_)
        is_kept = record is not None and not record.flags & Flag.NOTHING_KEPT
        is_forgotten = message is not None and message.stage == Stage.DONE and is_kept

        assert self.scene.do(Forget((id_,))) == is_forgotten

        if message is not None and is_forgotten:
            message.forget_ms = memory_ms

    # -- workers -------------------------------------------------------------------------------

    @rule(
        session=SESSIONS,
        queues=st.frozensets(QUEUES, min_size=1),
        tasks=st.frozensets(TASKS, min_size=1),
        prefetch_count=st.integers(0, 4),
        named=st.frozensets(BACK),
    )
    def register(
        self,
        session: str,
        queues: frozenset[str],
        tasks: frozenset[str],
        prefetch_count: int,
        named: frozenset[int],
    ) -> None:
        mine = self.model.held(session)
        leases = [self.leases[-1 - back][1] for back in named if back < len(self.leases)]
        held = {lease.id: lease for lease in leases}
        kept = {
            id_ for id_, lease in held.items() if id_ in mine and mine[id_].attempt == lease.attempt
        }
        for id_ in mine.keys() - kept:
            was_started = mine[id_].stage == Stage.STARTED
            self.model.lose(mine[id_], self.scene.now_ms, was_started=was_started)
        tasks |= {MEMBER_TASK}
        self.model.workers[session] = Worker(queues, tasks, prefetch_count)

        lost = self.scene.register(
            session,
            queues=tuple(queues),
            tasks=tasks,
            prefetch_count=prefetch_count,
            held=tuple(held.values()),
        )

        assert {lease.id for lease in lost} == held.keys() - kept
        self.check_deliveries()

    def choose(self, back: int, session: str | None) -> tuple[str, LeaseId, Message | None]:
        """A lease, who speaks of it, and the message if it is his and the newest attempt."""
        if not self.leases:
            return "s1", LeaseId("m0", 1), None
        owner, lease = self.leases[-1 - back % len(self.leases)]
        session = session or owner
        message = self.model.held(session).get(lease.id)
        if message is not None and message.attempt != lease.attempt:
            message = None
        return session, lease, message

    @rule(back=BACK, speaker=st.none() | SESSIONS)
    def start(self, back: int, speaker: str | None) -> None:
        session, lease, message = self.choose(back, speaker)
        if message:
            message.stage = Stage.STARTED

        self.scene.report(session, starts=[lease])

        self.check_deliveries()

    @rule(
        back=BACK,
        speaker=st.none() | SESSIONS,
        outcome=st.sampled_from(Outcome),
        requeue=st.booleans(),
        is_started=st.booleans(),
        delay_ms=st.sampled_from([0, 1, 30]),
        expires_in_ms=st.sampled_from([0, 40]),
        task=TASKS,
        queue=QUEUES,
        priority=st.integers(0, 2),
        is_late=st.booleans(),
        is_changed=st.booleans(),
        size=SIZES,
    )
    def settle(
        self,
        back: int,
        speaker: str | None,
        outcome: Outcome,
        requeue: bool,
        is_started: bool,
        delay_ms: int,
        expires_in_ms: int,
        task: str,
        queue: str,
        priority: int,
        is_late: bool,
        is_changed: bool,
        size: int,
    ) -> None:
        session, lease, message = self.choose(back, speaker)
        now_ms = self.scene.now_ms
        eta_ms = now_ms + delay_ms
        other: NewMessage | None = None
        if outcome == Outcome.REPLACED or (outcome == Outcome.RETRY and is_changed):
            other = new(
                lease.id,
                task=task,
                queue=queue,
                priority=priority,
                eta_ms=eta_ms if delay_ms else 0,
                expires_ms=now_ms + expires_in_ms if expires_in_ms else 0,
                flags=Flag.ACK_LATE * is_late,
                payload=lease.id.partition("~")[0].encode() * size,
            )
        requeue = requeue and outcome == Outcome.REJECTED
        if message is not None:
            if outcome == Outcome.WORKER_LOST:
                self.model.lose(message, now_ms, was_started=True)
            elif outcome == Outcome.RETRY:
                self.model.retry(message, now_ms, eta_ms, other)
            elif outcome == Outcome.REPLACED:
                assert other is not None
                self.model.replace(message, now_ms, other)
            elif requeue and message.is_revoking:
                self.model.end(message, now_ms, is_kept=True)
            elif requeue:
                message.stage, message.session = Stage.QUEUED, ""
            elif outcome == Outcome.REJECTED:
                message.stage, message.session = Stage.DEAD, ""
            else:
                self.model.end(message, now_ms, is_kept=outcome != Outcome.IGNORED)

        reported = self.scene.report(
            session,
            starts=[lease] if is_started else [],
            settles=[
                Settle(
                    lease.id,
                    lease.attempt,
                    outcome,
                    b"result",
                    requeue,
                    message=other,
                    eta_ms=eta_ms,
                )
            ],
        )

        assert reported.lost == (() if message else (lease,))
        self.check_deliveries()

    @precondition(lambda self: self.model.leased())
    @rule(data=st.data())
    def reject(self, data: st.DataObject) -> None:
        """Dead letters are rare among all that may happen, so they get a rule."""
        id_ = data.draw(st.sampled_from(self.model.leased()))
        message = self.model.messages[id_]
        session, lease = message.session, LeaseId(id_, message.attempt)
        message.stage, message.session = Stage.DEAD, ""

        self.scene.report(session, settles=[Settle(id_, lease.attempt, Outcome.REJECTED, b"why")])

        self.check_deliveries()

    @rule(ids=st.frozensets(ANY_IDS, min_size=1), is_terminated=st.booleans())
    def revoke(self, ids: frozenset[str], is_terminated: bool) -> None:
        now_ms = self.scene.now_ms
        known = {id_: self.model.messages[id_] for id_ in ids if id_ in self.model.messages}
        told = {i for i, m in known.items() if m.stage in (Stage.LEASED, Stage.STARTED)}
        waiting = (Stage.QUEUED, Stage.SCHEDULED, Stage.WAITING)
        waited = {i for i, m in known.items() if m.stage in waiting}
        # The end of a member may end its body before the command comes to that.
        bodies = {i for i in waited if known[i].stage == Stage.WAITING}

        # Ids that nobody has published are the business of test_revoke.py.
        revoked = self.scene.do(Revoke(sorted(known), is_terminated))

        assert set(revoked.told) == told
        assert waited - bodies <= set(revoked.ended) <= waited
        for id_ in told:
            known[id_].is_revoking = True
        for id_ in waited:
            self.model.end(known[id_], now_ms, is_kept=True)
        self.check_deliveries()

    @precondition(lambda self: self.model.dead())
    @rule(data=st.data())
    def requeue_dead_letter(self, data: st.DataObject) -> None:
        self.requeue(data.draw(st.sampled_from(self.model.dead())))

    @rule(id_=ANY_IDS)
    def requeue(self, id_: str) -> None:
        message = self.model.messages.get(id_)
        is_dead = message is not None and message.stage == Stage.DEAD

        assert self.scene.do(dead.Requeue((id_,))) == is_dead

        if message is not None and is_dead:
            message.stage, message.deaths, message.expires_ms = Stage.QUEUED, 0, 0
            message.is_revoking, message.place = False, self.model.next_place()
            self.check_deliveries()

    @rule(id_=ANY_IDS)
    def remove_dead(self, id_: str) -> None:
        message = self.model.messages.get(id_)
        is_dead = message is not None and message.stage == Stage.DEAD

        assert self.scene.do(dead.Remove((id_,))) == is_dead

        if is_dead:
            del self.model.messages[id_]

    @rule(queue=QUEUES)
    def pause(self, queue: str) -> None:
        self.scene.do(Pause(queue, "somebody", "a reason"))
        self.model.paused.add(queue)

    @precondition(lambda self: self.model.paused)
    @rule(data=st.data())
    def resume(self, data: st.DataObject) -> None:
        queue = data.draw(st.sampled_from(sorted(self.model.paused)))
        self.model.paused.discard(queue)

        assert self.scene.do(Resume(queue))
        self.check_deliveries()

    @rule(source=QUEUES, other=QUEUES)
    def move(self, source: str, other: str) -> None:
        queued = [m for m in self.model.messages.values() if m.stage == Stage.QUEUED]
        moving = sorted((m for m in queued if m.queue == source), key=lambda m: m.order)
        try:
            moved_count = self.scene.do(Move(source, other))
        except (Invalid, NotFound):
            assert source == other or not moving
            return
        assert moved_count == len(moving)
        for message in moving:
            message.queue, message.place = other, self.model.next_place()
        self.check_deliveries()

    @rule(back=BACK, speaker=st.none() | SESSIONS)
    def release(self, back: int, speaker: str | None) -> None:
        session, lease, message = self.choose(back, speaker)
        if message:
            was_started = message.stage == Stage.STARTED
            self.model.lose(message, self.scene.now_ms, was_started=was_started)

        self.scene.report(session, releases=[lease])

        self.check_deliveries()

    @rule(session=SESSIONS, prefetch_count=st.none() | st.integers(0, 4), drains=st.booleans())
    def wish(self, session: str, prefetch_count: int | None, drains: bool) -> None:
        if worker := self.model.workers.get(session):
            worker.is_draining |= drains
            if prefetch_count is not None:
                worker.prefetch_count = prefetch_count

        self.scene.report(session, prefetch_count=prefetch_count, is_draining=drains)

        self.check_deliveries()

    @rule(session=SESSIONS)
    def hang_up(self, session: str) -> None:
        self.model.workers.pop(session, None)

        self.scene.broker.dispatcher.disconnect(session)

    @rule(session=SESSIONS)
    def end_grace(self, session: str) -> None:
        if session in self.model.workers:
            return
        for message in self.model.held(session).values():
            was_started = message.stage == Stage.STARTED
            self.model.lose(message, self.scene.now_ms, was_started=was_started)

        assert not self.scene.do(ReturnLeases(session, "gone"))
        self.check_deliveries()

    # -- time ----------------------------------------------------------------------------------

    @rule(delta_ms=DELAYS)
    def pass_time(self, delta_ms: int) -> None:
        self.scene.clock.advance(delta_ms)

    @rule()
    def sweep(self) -> None:
        now_ms = self.scene.now_ms
        waiting = (Stage.QUEUED, Stage.SCHEDULED)
        events: list[tuple[int, bytes, str]] = []
        for id_, message in self.model.messages.items():
            if message.stage in waiting and 0 < message.expires_ms <= now_ms:
                events.append((message.expires_ms, b"e", id_))
            if message.stage == Stage.SCHEDULED and message.eta_ms <= now_ms:
                events.append((message.eta_ms, b"d", id_))
            if message.stage == Stage.DONE and message.forget_ms <= now_ms:
                events.append((message.forget_ms, b"f", id_))
        for _, kind, id_ in sorted(events):
            message = self.model.messages[id_]
            if kind == b"e" and message.stage in waiting:
                self.model.end(message, now_ms, is_kept=True)
            elif kind == b"d" and message.stage == Stage.SCHEDULED:
                message.stage, message.place = Stage.QUEUED, self.model.next_place()
            elif kind == b"f":
                del self.model.messages[id_]

        # Where somebody takes what is ready between two steps, the model would have to know what came in which.
        while self.scene.do(Sweep(limit=1_000 if self.model.workers else 3)):
            pass

        self.check_deliveries()

    @rule()
    def restart(self) -> None:
        self.model.workers.clear()

        self.scene.restart()

    # -- what is checked -----------------------------------------------------------------------

    def look_at_members(self) -> None:
        """Read from the store where the members of workflows are."""
        for id_ in MEMBERS:
            record = self.scene.find(id_)
            if record is None:
                self.model.messages.pop(id_, None)
                continue
            self.model.messages[id_] = Message(
                record.task,
                record.queue,
                record.priority,
                bool(record.flags & Flag.ACK_LATE),
                bool(record.flags & Flag.IGNORE_RESULT),
                eta_ms=0,
                expires_ms=0,
                place=0,
                stage=Stage(record.stage),
                session=record.session,
                attempt=record.attempt,
                deaths=record.deaths,
                forget_ms=2**62,
                is_revoking=bool(record.flags & Flag.REVOKING),
                is_member=True,
            )

    def check_deliveries(self) -> None:
        """Each delivery was to be given, and nothing that was to be given was left."""
        model, now_ms = self.model, self.scene.now_ms
        self.look_at_members()
        given: list[Message] = []
        for session in ("s1", "s2"):
            for delivery in self.scene.take(session):
                message = model.messages[delivery.id]
                if message.is_member:
                    self.leases.append((session, LeaseId(delivery.id, delivery.record.attempt)))
                    assert model.may_take(session, message)
                    assert len(model.held(session)) <= model.workers[session].prefetch_count
                    continue
                assert message.stage == Stage.QUEUED
                assert not 0 < message.expires_ms <= now_ms
                assert message.queue not in model.paused
                assert model.may_take(session, message)
                assert model.has_room(session)
                message.attempt += 1
                message.stage, message.session = Stage.LEASED, session
                given.append(message)
                self.leases.append((session, LeaseId(delivery.id, message.attempt)))
                assert delivery.record.attempt == message.attempt
                name = delivery.id.partition("~")[0].encode()
                assert delivery.payload == name * (len(delivery.payload) // 2)
        for id_, message in model.messages.items():
            if message.stage != Stage.QUEUED:
                continue
            if 0 < message.expires_ms <= now_ms:
                # Whether it is revoked yet depends on whether anybody looked.
                if self.scene.record(id_).stage == Stage.DONE:
                    model.end(message, now_ms, is_kept=True)
                continue
            if message.queue in model.paused:
                continue
            for session in model.workers:
                assert not (model.may_take(session, message) and model.has_room(session)), id_
            for other in given if not message.is_member else ():
                if (other.queue, other.task) == (message.queue, message.task):
                    assert other.order < message.order

    @invariant()
    def the_store_is_healthy(self) -> None:
        assert self.scene.faults() == []

    @invariant()
    def the_members_are_where_the_store_says(self) -> None:
        self.look_at_members()

    @invariant()
    def the_store_says_what_the_model_says(self) -> None:
        for id_, message in self.model.messages.items():
            record = self.scene.record(id_)
            assert record.stage == message.stage, id_
            assert record.attempt == message.attempt
            assert record.deaths == message.deaths
            if message.stage in (Stage.LEASED, Stage.STARTED):
                assert record.session == message.session

    @invariant()
    def the_dispatcher_counts_what_the_store_holds(self) -> None:
        for session in self.model.workers:
            known = self.scene.broker.dispatcher.sessions[session]
            assert known.leased_count == len(self.model.held(session))


class LmdbMachine(BrokerMachine):
    """The same on disk, where the store may also be closed and opened."""

    def make(self) -> Scene:
        self.directory = Path(tempfile.mkdtemp())
        return Scene(LmdbEngine(self.directory), policy=POLICY)

    @precondition(lambda self: self.model.messages)
    @rule()
    def reopen(self) -> None:
        self.scene.engine.close()
        self.scene.engine = LmdbEngine(self.directory)
        self.restart()

    def teardown(self) -> None:
        self.scene.engine.close()
        shutil.rmtree(self.directory)


TestBrokerMachine = BrokerMachine.TestCase
TestBrokerMachine.settings = settings(
    max_examples=200,
    stateful_step_count=50,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)

TestLmdbMachine = LmdbMachine.TestCase
TestLmdbMachine.settings = settings(
    max_examples=15,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
