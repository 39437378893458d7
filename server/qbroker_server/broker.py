"""The one writer: decide, commit, reply.

Whatever waits in the inbox is applied in one transaction, dispatch included, and nobody is answered
before that transaction is on disk. One flush serves every call that piled up during the last
one, and no timer makes anybody wait.

A step has three parts, so that they can run where they belong: `decide` and `commit` on the thread
that owns the store, `reply` on the thread that owns the streams (pump.py). `step()` is all three.
"""

import logging
import sys
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from qbroker_server.core import joins, lease, limits, queue, versions, workflows
from qbroker_server.core.command import Command
from qbroker_server.core.dispatch import Delivery, Dispatcher
from qbroker_server.core.effects import Cancel, Effects, Policy
from qbroker_server.core.errors import (
    CoreError,
    NewerVersion,
    StoreDamaged,
    StoreFull,
    StoreLost,
)
from qbroker_server.core.ports import Engine, ReadTxn, Txn, WriteTxn
from qbroker_server.core.records import Record
from qbroker_server.core.routes import Table

logger = logging.getLogger(__name__)

R = TypeVar("R")
Reply = Callable[[Any], None]

RETRY_S = 1.0
"""How long a disk that took nothing is left alone before it is tried again."""

_NEVER_S = float("-inf")

_TELL_S = 60.0
"""How often it is said that publishes are refused."""


class Listener(Protocol):
    """Somebody who wants to know what each step did, after it is on disk."""

    def stepped(self, step: "Step") -> None:
        """Called on the streams' thread, after the step's commands were answered."""


class Clock(Protocol):
    """What time it is."""

    def now_ms(self) -> int: ...

    def monotonic(self) -> float: ...


@dataclass(slots=True)
class Step:
    """One commit: what it answered, whom it gave what, what changed."""

    txn: WriteTxn
    batch: list[tuple[Command[Any], Reply]]
    """What it was made of, for when the disk does not take it."""
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

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        policy: Policy,
        known_versions: Callable[[], Mapping[str, int]] = versions.known,
    ) -> None:
        self.engine = engine
        self.policy = policy
        self.dispatcher = Dispatcher()
        self.routes = Table()
        self.listeners: list[Listener] = []
        self._clock = clock
        self._known_versions = known_versions
        self._inbox: deque[tuple[Command[Any], Reply]] = deque()
        self._full_s = _NEVER_S
        """When the disk last refused a step."""
        self._told_s = float("-inf")
        self.trouble = ""
        """Why nothing can be stored for now; empty while something can."""
        self.damage: StoreDamaged | None = None
        """A page could not be read: from then on the store is only read, until the broker ends."""

    def recover(self) -> Recovered:
        """Learn what the store holds; O(queues + sessions). NewerVersion: a newer broker wrote to it."""
        ours = self._known_versions()
        with self.engine.read() as txn:
            are_new = versions.check(txn, ours)
        if are_new:
            change = self.engine.begin(bytes_max=limits.KIB)
            try:
                versions.write(change, ours)
            except BaseException:
                change.abort()
                raise
            change.commit()
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
        """Whether a step would have something to do now."""
        return bool(self._inbox) and (not self.trouble or self.damage is not None)

    def is_light(self, items_max: int) -> bool:
        """Whether the next step is a single command of up to `items_max` items."""
        return len(self._inbox) == 1 and self._inbox[0][0].cost[0] <= items_max

    def step(self) -> Step:
        """Decide, commit and reply, all on this thread."""
        while True:
            step = self.decide()
            try:
                step.txn.commit()
            except Exception as error:
                if not self.take_back(step, error):
                    raise
                continue
            self.reply(step)
            return step

    def decide(self) -> Step:
        """Apply what waits, and dispatch; nothing is durable yet."""
        if self.damage is not None or (self.trouble and self._is_full()):
            return self._refuse()
        batch, bytes_max = self._take()
        try:
            return self._decide(batch, bytes_max)
        except CoreError:
            raise
        except Exception as error:  # noqa: BLE001 — looked at below
            failure = error
        meaning = self.engine.meaning(failure)
        if not isinstance(meaning, StoreFull | StoreDamaged):
            # A defect in one command must not cost its neighbours: apply each alone to find it.
            logger.error(
                "A step of %d commands failed; each is applied alone.",
                len(batch),
                exc_info=failure,
            )
            try:
                return self._decide_each(batch)
            except CoreError:
                raise
            except Exception as error:  # noqa: BLE001 — looked at below
                meaning = self.engine.meaning(failure := error)
        if isinstance(meaning, StoreDamaged):
            self._degrade(batch, meaning)
        elif isinstance(meaning, StoreFull):
            self._put_back(batch, {}, meaning)
        else:
            raise failure
        return self.decide()

    def _degrade(self, batch: list[tuple[Command[Any], Reply]], damage: StoreDamaged) -> None:
        """Only read the store from now on: a change could reach the damaged page, or pages that it wrongly calls free."""
        self.damage = damage
        self.trouble = f"the store is damaged and only read: {damage}"
        logger.critical(
            "%s. Nothing is stored or delivered any more, and what is on the page may be lost. Stop the broker, then see "
            "what is damaged with `qbroker check DIR` and copy what can be read with `qbroker salvage DIR --to NEW`.",
            damage,
        )
        self._inbox.extendleft(reversed(batch))
        self.routes.forget()

    def _is_full(self) -> bool:
        """Whether the disk refused a step a moment ago."""
        return self._clock.monotonic() - self._full_s < RETRY_S

    def take_back(self, step: Step, error: Exception) -> bool:
        """Have the commands of `step` wait again when its commit stored nothing; False when that is not sure."""
        full = self.engine.meaning(error)
        if isinstance(full, StoreDamaged):
            self._degrade(step.batch, full)
            return True
        if full is None:
            return False
        self._put_back(step.batch, step.deliveries, full)
        return True

    def _put_back(
        self,
        batch: list[tuple[Command[Any], Reply]],
        deliveries: dict[str, list[Delivery]],
        full: StoreFull,
    ) -> None:
        """Undo a step that the disk refused. Without its publishes it may fit; if not, it waits."""
        now_s = self._clock.monotonic()
        if self._is_full() and not self.trouble:
            self.trouble = f"nothing can be stored for now: {full}"
            logger.error("Nothing can be stored, and is tried again each second: %s", full)
        elif now_s - self._told_s >= _TELL_S:
            self._told_s = now_s
            logger.error("Publishes are refused for now: %s", full)
        self._full_s = now_s
        self._inbox.extendleft(reversed(batch))
        self.routes.forget()
        with self.engine.read() as txn:
            self.dispatcher.reload(txn, self._clock.now_ms(), deliveries)

    def _refuse(self) -> Step:
        """Answer what is refused or changes nothing, without the disk; all else waits."""
        waiting = list(self._inbox)
        self._inbox.clear()
        answers: list[tuple[Reply, object]] = []
        now_ms = self._clock.now_ms()
        # With a damaged store it is not for lack of room that a publish is refused.
        room_bytes = 0 if self.damage is None else sys.maxsize
        with self.engine.read() as txn:
            for command, reply in waiting:
                effects = Effects(
                    self.policy, room_bytes, self._is_consumed, self.routes, self._worker_name
                )
                view = _Unchangeable(txn)
                try:
                    value: object = command.apply(view, now_ms, effects)
                    _flush(view, effects)
                except CoreError as error:
                    value = error
                except _Change:
                    if self.damage is None:
                        self._inbox.append((command, reply))
                        continue
                    value = StoreDamaged(f"nothing can be changed: {self.damage}")
                except Exception as error:
                    damage = self.engine.meaning(error)
                    if not isinstance(damage, StoreDamaged):
                        raise
                    value = damage
                else:
                    # It changed what only the dispatcher knows, or nothing.
                    self.dispatcher.absorb(effects)
                answers.append((reply, value))
        return Step(
            _Unchangeable(None), [], answers, {}, [], {}, {}, {}, set(), None, has_more=False
        )

    def _is_consumed(self, name: str) -> bool:
        return bool(self.dispatcher.consumers(name))

    def _worker_name(self, session_id: str) -> str:
        session = self.dispatcher.sessions.get(session_id)
        return session_id if session is None else session.name

    def reply(self, step: Step) -> None:
        """Answer everybody a committed step concerns."""
        if self.trouble and not isinstance(step.txn, _Unchangeable):
            logger.warning("The disk takes something again.")
            self.trouble = ""
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
        was_full = self._full_s > _NEVER_S
        room_bytes = 0 if self.trouble or (was_full and self._is_full()) else self.engine.room_bytes
        effects = Effects(
            self.policy, room_bytes, self._is_consumed, self.routes, self._worker_name
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
                except NewerVersion:
                    # Only a newer broker may work on this store.
                    raise
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
            _flush(txn, effects)
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
            batch[: len(answers)],
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
        broken_commands: list[tuple[Command[Any], Reply]] = []
        for command, reply in batch:
            txn = self.engine.begin(bytes_max=limits.STEP_BYTES_MAX)
            try:
                command.apply(
                    txn, self._clock.now_ms(), Effects(self.policy, self.engine.room_bytes)
                )
            except CoreError:
                sound.append((command, reply))
            except Exception as error:
                if self.engine.meaning(error) is not None:
                    raise
                broken_commands.append((command, reply))
                logger.exception("A %s could not be applied.", type(command).__name__)
                broken.append((reply, InternalError(f"the broker failed: {error!r}")))
            else:
                sound.append((command, reply))
            finally:
                txn.abort()
        step = self._decide(sound, limits.STEP_BYTES_MAX)
        step.answers += broken
        step.batch += broken_commands
        return step


def _flush(txn: Txn, effects: Effects) -> None:
    """Write what the commands have only summed up."""
    if effects.joins is not None:
        joins.of(effects).flush(txn)
    if effects.workflows:
        workflows.flush(txn, effects)
    effects.flush(txn)


class _Change(Exception):
    """A command wants to change what cannot be changed now."""


class _Unchangeable:
    """A view of the store for a command that may only look."""

    def __init__(self, txn: ReadTxn | None) -> None:
        self._txn = txn

    def get(self, key: bytes, /) -> bytes | None:
        assert self._txn is not None
        return self._txn.get(key)

    def scan(self, start: bytes, stop: bytes, limit: int, /) -> Sequence[tuple[bytes, bytes]]:
        assert self._txn is not None
        return self._txn.scan(start, stop, limit)

    def put(self, key: bytes, value: bytes, /) -> object:
        if self.get(key) != value:
            raise _Change
        return True

    def delete(self, key: bytes, /) -> bool:
        if self.get(key) is not None:
            raise _Change
        return False

    def commit(self) -> None:
        """Nothing has changed."""

    def abort(self) -> None:
        """Nothing has changed."""


def _give(answer: Reply, value: object) -> None:
    try:
        answer(value)
    except Exception:
        # The others wait for theirs.
        logger.exception("An answer could not be given.")


class InternalError(CoreError):
    """A defect of ours kept a command from being applied; nothing of it was stored."""
