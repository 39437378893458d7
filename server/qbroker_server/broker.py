"""The one writer: decide, commit, reply.

Whatever waits in the inbox is applied in one transaction, dispatch included, and nobody is answered
before that transaction is on disk. One flush serves every call that piled up during the last
one, and no timer makes anybody wait.

A step has three parts, so that they can run where they belong: `decide` and `commit` on the thread
that owns the store, `reply` on the thread that owns the streams (pump.py). `step()` is all three.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from qbroker_server.core import joins, lease, limits, queue, routing, workflows
from qbroker_server.core.command import Command
from qbroker_server.core.dispatch import Delivery, Dispatcher
from qbroker_server.core.effects import Cancel, Effects, Policy
from qbroker_server.core.errors import CoreError, StoreLost
from qbroker_server.core.ports import Engine, ReadTxn, WriteTxn
from qbroker_server.core.records import Record
from qbroker_server.core.routes import Table

logger = logging.getLogger(__name__)

R = TypeVar("R")
Reply = Callable[[Any], None]


class Listener(Protocol):
    """Somebody who wants to know what each step did, after it is on disk."""

    def stepped(self, step: "Step") -> None:
        """Called on the streams' thread, after the step's commands were answered."""


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int: ...


@dataclass(slots=True)
class Step:
    """One commit: what it answered, whom it gave what, what changed."""

    txn: WriteTxn
    answers: list[tuple[Reply, object]]
    deliveries: dict[str, list[Delivery]]
    cancels: list[Cancel]
    came: dict[str, int]
    went: dict[str, int]
    changed: dict[str, Record]
    removed_queues: set[str]
    next_ms: int | None
    """The earliest time at which something of this step, or what a limit holds back, wants to be looked at."""
    has_more: bool
    """It looked at as many messages as one step may: there may be more to give."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was in the store when the broker started."""

    queue_count: int
    ready_count: int
    scheduled_count: int
    leased_count: int
    sessions: tuple[str, ...]
    """Worker sessions that held leases; they may come back."""


class Broker:
    """Owns the engine, the inbox and the dispatcher."""

    def __init__(self, engine: Engine, clock: Clock, policy: Policy) -> None:
        self.engine = engine
        self.policy = policy
        self.dispatcher = Dispatcher()
        self.routes = Table()
        self.listeners: list[Listener] = []
        self._clock = clock
        self._inbox: deque[tuple[Command[Any], Reply]] = deque()

    def recover(self) -> Recovered:
        """Learn what the store holds; O(queues + sessions)."""
        with self.engine.read() as txn:
            self.dispatcher.load(txn, self._clock.now_ms())
            counts = [queue.counts(txn, name) for name in queue.names(txn)]
            return Recovered(
                queue_count=len(counts),
                ready_count=sum(count.ready_count for count in counts),
                scheduled_count=sum(count.scheduled_count for count in counts),
                leased_count=sum(count.leased_count for count in counts),
                sessions=tuple(lease.sessions(txn)),
            )

    def submit(self, command: Command[R], reply: Callable[[R | CoreError], None]) -> None:
        """Have `command` applied by a coming step; `reply` gets its answer or refusal after the commit."""
        self._inbox.append((command, reply))

    @property
    def has_work(self) -> bool:
        """Whether a step would have something to do."""
        return bool(self._inbox)

    def is_light(self, items_max: int) -> bool:
        """Whether the next step is a single command of up to `items_max` items."""
        return len(self._inbox) == 1 and self._inbox[0][0].cost[0] <= items_max

    def step(self) -> Step:
        """Decide, commit and reply, all on this thread."""
        step = self.decide()
        step.txn.commit()
        self.reply(step)
        return step

    def decide(self) -> Step:
        """Apply what waits, and dispatch; nothing is durable yet."""
        batch, bytes_max = self._take()
        try:
            return self._decide(batch, bytes_max)
        except CoreError:
            raise
        except Exception:
            # A defect in one command must not cost its neighbours: apply each alone to find it.
            logger.exception("A step of %d commands failed; each is applied alone.", len(batch))
            return self._decide_each(batch)

    def _is_consumed(self, name: str) -> bool:
        return bool(self.dispatcher.consumers(name))

    def _worker_name(self, session_id: str) -> str:
        session = self.dispatcher.sessions.get(session_id)
        return session_id if session is None else session.name

    def reply(self, step: Step) -> None:
        """Answer everybody a committed step concerns."""
        for answer, value in step.answers:
            _give(answer, value)
        for listener in self.listeners:
            try:
                listener.stepped(step)
            except Exception:
                # What one of them cannot take must not cost the others what was leased to their workers.
                logger.exception("%r failed to hear of a step", listener)

    def abandon(self, step: Step | None) -> None:
        """Tell all who wait that there will be no answer: the commit of `step` failed, and it was the last."""
        waiting = [answer for answer, _ in step.answers] if step is not None else []
        waiting += [answer for _, answer in self._inbox]
        self._inbox.clear()
        error = StoreLost("the broker's store has failed; what was asked may or may not be stored")
        for answer in waiting:
            _give(answer, error)

    def read(self, look: Callable[[ReadTxn], R]) -> R:
        """What `look` sees in the last commit."""
        with self.engine.read() as txn:
            return look(txn)

    def _take(self) -> tuple[list[tuple[Command[Any], Reply]], int]:
        inbox = self._inbox
        batch: list[tuple[Command[Any], Reply]] = []
        items = size = 0
        while inbox and items < limits.STEP_ITEMS_MAX and size < limits.STEP_BYTES_MAX:
            batch.append(inbox.popleft())
            more_items, more_bytes = batch[-1][0].cost
            items += more_items
            size += more_bytes
        return batch, size + limits.KIB * items

    def _decide(self, batch: list[tuple[Command[Any], Reply]], bytes_max: int) -> Step:
        now_ms = self._clock.now_ms()
        answers: list[tuple[Reply, object]] = []
        txn = self.engine.begin(bytes_max=bytes_max)
        effects = Effects(
            self.policy, self.engine.room_bytes, self._is_consumed, self.routes, self._worker_name
        )
        has_more = False
        left: list[tuple[Command[Any], Reply]] = []
        try:
            for place, (command, reply) in enumerate(batch):
                if effects.copied_count >= limits.STEP_ITEMS_MAX:
                    # It is more than was said: the others take their turn in the next step.
                    left = batch[place:]
                    break
                try:
                    value: object = command.apply(txn, now_ms, effects)
                except CoreError as error:
                    value = error
                answers.append((reply, value))
                if effects.ended:
                    joins.resolve(txn, now_ms, effects)
            self.dispatcher.absorb(effects)
            deliveries: dict[str, list[Delivery]] = {}
            if effects.commits_first:
                has_more = True
            else:
                deliveries = self.dispatcher.dispatch(txn, now_ms, effects)
            if effects.ended:
                # What expired on its way out: others may have waited for it.
                joins.resolve(txn, now_ms, effects)
                self.dispatcher.absorb_ready(effects)
                has_more = True
            if effects.joins is not None:
                joins.of(effects).flush(txn)
            if effects.workflows:
                workflows.flush(txn, effects)
            if effects.removed_queues:
                routing.unbind_queues(txn, effects.removed_queues, effects)
            effects.flush(txn)
        except BaseException:
            txn.abort()
            # It may know of what was not stored.
            self.routes.forget()
            raise
        for sentence in effects.damaged:
            logger.error("Put aside: %s", sentence)
        while self.routes.damaged:
            logger.error("Left out: %s", self.routes.damaged.pop())
        self._inbox.extendleft(reversed(left))
        has_more = has_more or self.dispatcher.is_cut_short or bool(left)
        times = [ms for ms in (effects.next_ms, self.dispatcher.wake_ms) if ms is not None]
        return Step(
            txn,
            answers,
            deliveries,
            effects.cancels,
            effects.came,
            effects.went,
            effects.changed,
            effects.removed_queues,
            min(times, default=None),
            has_more,
        )

    def _decide_each(self, batch: list[tuple[Command[Any], Reply]]) -> Step:
        """Apply each command of a failed batch to a transaction of its own, to learn which may stay."""
        sound: list[tuple[Command[Any], Reply]] = []
        broken: list[tuple[Reply, object]] = []
        for command, reply in batch:
            txn = self.engine.begin(bytes_max=limits.STEP_BYTES_MAX)
            try:
                command.apply(txn, self._clock.now_ms(), Effects(self.policy, 0))
            except CoreError:
                sound.append((command, reply))
            except Exception as error:
                logger.exception("A %s could not be applied.", type(command).__name__)
                broken.append((reply, InternalError(f"the broker failed: {error!r}")))
            else:
                sound.append((command, reply))
            finally:
                txn.abort()
        step = self._decide(sound, limits.STEP_BYTES_MAX)
        step.answers += broken
        return step


def _give(answer: Reply, value: object) -> None:
    try:
        answer(value)
    except Exception:
        # The others wait for theirs.
        logger.exception("An answer could not be given.")


class InternalError(CoreError):
    """A defect of ours kept a command from being applied; nothing of it was stored."""
