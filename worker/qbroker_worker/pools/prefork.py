"""Tasks run in child processes, begun by a process that has the app and never had a connection.

A delivery's way through this module:

    submit → waiting ──dispatch──▶ batch of a child ──claimed──▶ running ──record──▶ finished
                ▲                        │                          │
                └──── withdrawn ─────────┘                          └─ child died ──▶ lost

A child has at most two batches, so that it never waits for the parent. What was handed over is
claimed task by task from a pipe (frames.py), so the parent can take back what has not begun, and
knows after a child's death what had.
"""

import asyncio
import json
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Iterable

from qbroker_worker import clock
from qbroker_worker.pools import frames, ledger
from qbroker_worker.pools.child import encode_notice
from qbroker_worker.pools.forkserver import ForkServer, how_it_ended
from qbroker_worker.pools.ledger import Batch, Child
from qbroker_worker.pools.pace import Pace, Portion
from qbroker_worker.pools.pool import LostResult, Reports, Restarted, expired, lost, revoked
from qbroker_worker.values import Delivery, Finished, Notice, Restart

logger = logging.getLogger(__name__)

STOPPED_S = 60.0
"""How long a child may be stopped by a signal before it is killed, and its task reported as lost."""

READS_MAX = 16
"""How often a child is read from before others have their turn."""

LOOK_S = 0.005
"""How often the parent looks at children that have not said anything. Only while there are some."""

REFILL_S = 1.0
"""How long the pool waits before it replaces a child that died before it began a task."""

DUMP_APART_S = 0.05
"""Between one child's stacks and the next one's."""

TERMINATE_S = 0.5
"""How long a task that is terminated may take to heed the signal, before it is killed."""

STOP_S = 5.0
"""How long idle children may take to go when their sockets close."""


class PreforkPool:
    """A supervisor of children. It refills itself when one dies."""

    name = "prefork"

    def __init__(
        self,
        server: ForkServer,
        *,
        slots: int,
        lost_result: LostResult,
        stopped_s: float = STOPPED_S,
    ) -> None:
        self.slots = slots
        self._stopped_s = stopped_s
        self._server = server
        self._lost_result = lost_result
        self._pace = Pace()
        self._waiting: deque[Delivery] = deque()
        self._overdue: deque[tuple[Delivery, float]] = deque()
        """What its hard time limit has ended, with that: some child is to run its failure handlers."""
        self._notices: deque[Delivery] = deque()
        """What some child is to tell the app of, each in the place of a task's message."""
        self._children: dict[int, Child] = {}
        self._born = 0
        self._is_paused = False
        self._result_bytes_max = 0
        self._is_closing = False
        self._control_unread = b""
        self._restarts: deque[Restarted] = deque()
        """Who waits to hear how a restart went."""
        self._timer: asyncio.TimerHandle | None = None
        self._refills: set[asyncio.TimerHandle] = set()
        self._all_gone = asyncio.Event()
        self._reports: Reports
        self._loop: asyncio.AbstractEventLoop

    # -- the pool's contract -------------------------------------------------------------------

    async def start(self, reports: Reports) -> None:
        self._reports = reports
        self._loop = asyncio.get_running_loop()
        self._server.control.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._loop.add_reader(self._server.control.fileno(), self._hear_server)
        for _ in range(self.slots):
            self._fork()

    def serve(self) -> None:
        """The main thread has nothing to do here."""

    @property
    def pids(self) -> list[int]:
        return [child.pid for child in self._children.values() if child.pid]

    @property
    def wanted_count(self) -> int:
        children = self._children.values()
        short = sum(not child.is_long and not child.is_retiring for child in children)
        return self.slots + short * self._pace.at_hand_count

    @property
    def is_idle(self) -> bool:
        return (
            not self._waiting
            and not self._overdue
            and not self._notices
            and all(child.is_idle for child in self._children.values())
        )

    def submit(self, deliveries: Iterable[Delivery]) -> None:
        self._waiting.extend(deliveries)
        self._dispatch()
        if self._waiting:
            self._look_soon()

    def limit_results(self, bytes_max: int) -> None:
        self._result_bytes_max = bytes_max
        for child in self._children.values():
            child.limit_results(bytes_max)

    def pause(self) -> None:
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self._dispatch()

    def withdraw(self) -> list[Delivery]:
        for child in self._children.values():
            self._waiting.extendleft(reversed(child.steal()))
        taken = list(self._waiting)
        self._waiting.clear()
        return taken

    def forget(self, deliveries: Iterable[Delivery]) -> None:
        unwanted = {id(delivery) for delivery in deliveries}
        for child in self._children.values():
            if any(id(found) in unwanted for batch in child.batches for found in batch.deliveries):
                self._waiting.extendleft(reversed(child.steal()))
        kept = [delivery for delivery in self._waiting if id(delivery) not in unwanted]
        self._waiting = deque(kept)
        self._dispatch()

    def cancel(self, delivery: Delivery, number: int | None) -> bool:
        child = next((child for child in self._children.values() if child.has(delivery)), None)
        if child is not None and not child.is_at(delivery):
            self._waiting.extendleft(reversed(child.steal()))
        try:
            self._waiting.remove(delivery)
        except ValueError:
            if child is not None and number is not None and child.is_at(delivery):
                self._terminate(child, delivery, number)
            return False
        finally:
            self._dispatch()
        return True

    def _terminate(self, child: Child, delivery: Delivery, number: int) -> None:
        """End a child in the middle of a task that was revoked; its neighbours go to another."""
        child.revoked = delivery
        self._tell_server(frames.KILL, child.number, value=number)

        def insist() -> None:
            self._refills.discard(timer)
            if self._children.get(child.number) is child and child.is_at(delivery):
                self._tell_server(frames.KILL, child.number)

        # The child does not heed the signals that stop a worker's whole group, and its task may not heed others.
        timer = self._loop.call_later(TERMINATE_S, insist)
        self._refills.add(timer)

    def resize(self, slots: int) -> None:
        self.slots = slots
        staying = [child for child in self._children.values() if not child.is_retiring]
        for _ in range(slots - len(staying)):
            self._fork()
        # Those that are idle go first, then those that began last.
        staying.sort(key=lambda child: (child.is_idle, child.number), reverse=True)
        for child in staying[: max(0, len(staying) - slots)]:
            self._retire(child)
        self._dispatch()

    def _retire(self, child: Child) -> None:
        """Let a child end when it has finished what it is at; it is given nothing more."""
        child.is_retiring = True
        self._waiting.extendleft(reversed(child.steal()))
        if not child.unsent:
            child.link.shutdown(socket.SHUT_WR)

    def notify(self, notice: Notice) -> None:
        self._notices.append(
            Delivery("", 0, False, "", "", False, encode_notice(notice))  # noqa: FBT003 - a plain value
        )
        self._dispatch()

    def restart(self, wanted: Restart, restarted: Restarted) -> None:
        body = json.dumps(wanted).encode()
        self._restarts.append(restarted)
        self._tell_server(frames.RESTART, 0, value=len(body), body=body)

    def _restarted(self, facts: bytes, trouble: str) -> None:
        if not trouble:
            for child in list(self._children.values()):
                if not child.is_retiring:
                    self._retire(child)
        self._restarts.popleft()(facts, trouble)

    def dump(self) -> None:
        # One after the other: a child writes its stacks line by line, and two at once write into each other's.
        for place, number in enumerate(self._children):
            self._loop.call_later(place * DUMP_APART_S, self._dump, number)

    def _dump(self, number: int) -> None:
        child = self._children.get(number)
        if child is not None and child.pid:
            self._tell_server(frames.KILL, number, value=signal.SIGUSR2)

    def kill(self) -> None:
        self._is_closing = True
        for number in self._children:
            self._tell_server(frames.KILL, number)
        if self._waiting:
            self._reports.returned(self._drop_waiting())
        given_up = [
            expired(delivery, limit_s, self._lost_result) for delivery, limit_s in self._overdue
        ]
        self._overdue.clear()
        self._notices.clear()
        if given_up:
            self._reports.finished(given_up)

    async def stop(self) -> None:
        self._is_closing = True
        for timer in (self._timer, *self._refills):
            if timer is not None:
                timer.cancel()
        for child in self._children.values():
            child.link.shutdown(socket.SHUT_WR)
        if self._children:
            try:
                async with asyncio.timeout(STOP_S):
                    await self._all_gone.wait()
            except TimeoutError:
                pass  # the fork server kills what is left
        self._loop.remove_reader(self._server.control.fileno())
        for child in list(self._children.values()):
            self._bury(child)
        self._server.close()

    # -- children ------------------------------------------------------------------------------

    def _fork(self) -> None:
        self._born += 1
        number = self._born
        link, theirs = socket.socketpair()
        link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        claims = os.pipe()
        for fd in claims:
            os.set_blocking(fd, False)
        with ledger.memory() as memory, theirs:
            memory.truncate(frames.SHARED_BYTES)
            child = Child(number, link=link, claims=claims, memory=memory.fileno())
            child.limit_results(self._result_bytes_max)
            self._children[number] = child
            fds = (theirs.fileno(), claims[0], memory.fileno())
            self._tell_server(frames.FORK, number, *fds)
        self._loop.add_reader(link.fileno(), self._hear, child)

    def _tell_server(
        self, kind: int, number: int, *fds: int, value: int = signal.SIGKILL, body: bytes = b""
    ) -> None:
        frame = frames.CONTROL.pack(kind, number, value) + body
        control = self._server.control
        # The frames are few and small: they fit the socket's buffer, or the server is gone.
        try:
            if fds:
                socket.send_fds(control, [frame], list(fds))
            else:
                control.send(frame)
        except OSError as exc:
            self._reports.failed(f"The fork server does not answer: {exc}.")

    def _hear_server(self) -> None:
        try:
            data = self._server.control.recv(ledger.READ_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self._loop.remove_reader(self._server.control.fileno())
            self._all_gone.set()  # nobody is left to tell of each child's end
            self._reports.failed("The fork server died, and its children with it.")
            return
        data = self._control_unread + data
        head = frames.CONTROL.size
        while len(data) >= head:
            kind, number, value = frames.CONTROL.unpack_from(data)
            if kind in (frames.RESTARTED, frames.FAILED):
                if len(data) < head + value:
                    break
                body = data[head : head + value]
                data = data[value:]
                is_done = kind == frames.RESTARTED
                self._restarted(body if is_done else b"", "" if is_done else body.decode())
            elif kind == frames.FORKED:
                self._children[number].pid = value
                self._dispatch()
            elif kind == frames.STOPPED:
                self._heed_stop(self._children[number], value)
            else:
                self._mourn(self._children[number], how_it_ended(value))
            data = data[head:]
        self._control_unread = data

    def _heed_stop(self, child: Child, number: int) -> None:
        """A signal has stopped a child, which would keep its slot for ever; 0: it continues."""
        if child.stopped is not None:
            child.stopped.cancel()
            child.stopped = None
        if not number:
            logger.warning("Child process %d continues.", child.pid)
            return
        delivery = child.current()
        logger.warning(
            "Child process %d was stopped by signal %d (%s)%s. It is killed if it does not continue in %g s; "
            "kill -CONT %d continues it.",
            child.pid,
            number,
            signal.Signals(number).name,
            f" in task {delivery.task}[{delivery.id}]" if delivery is not None else "",
            self._stopped_s,
            child.pid,
        )

        def kill() -> None:
            child.stopped = None
            logger.error(
                "Child process %d is killed: it was stopped by a signal for %g s.",
                child.pid,
                self._stopped_s,
            )
            self._tell_server(frames.KILL, child.number)

        child.stopped = self._loop.call_later(self._stopped_s, kill)

    def _mourn(self, child: Child, how: str) -> None:
        """A child has died: save what it finished, report what it was at, keep what it had not begun."""
        child.pid = 0
        self._hear(child, to_the_end=True)
        finished: list[Finished] = []
        for batch in child.batches:
            finished += child.records(batch, None, child.handed)
        claimed = child.claimed()
        unstarted: list[Delivery] = []
        for batch in child.batches:
            for number, delivery in enumerate(batch.deliveries, batch.first):
                if delivery is None or delivery is child.told:
                    continue  # finished, or a notice, which nobody waits for
                if number < claimed and delivery is child.revoked:
                    finished.append(revoked(delivery))
                elif number < claimed and delivery is child.expired:
                    if self._is_closing or delivery is child.handles:
                        finished.append(expired(delivery, child.expired_s, self._lost_result))
                    else:
                        self._overdue.append((delivery, child.expired_s))
                elif delivery is child.handles and number < claimed:
                    finished.append(expired(delivery, child.expired_s, self._lost_result))
                elif delivery is child.handles:
                    self._overdue.append((delivery, child.expired_s))
                elif number < claimed:
                    sentence = f"Worker exited prematurely: {how} Job: {delivery.id}."
                    finished.append(lost(delivery, sentence, self._lost_result))
                else:
                    unstarted.append(delivery)
        has_worked = claimed > 0
        if not child.is_ready and self._notices:
            # Where no child can begin there is nobody to tell, and nobody waits for it.
            self._notices.clear()
            self._reports.finished([])
        self._bury(child)
        if not self._is_closing:
            if has_worked or child.is_retiring:
                self._refill()
            else:
                self._refill_later()
            self._waiting.extendleft(reversed(unstarted))
        elif unstarted:
            self._reports.returned(unstarted)
        if finished or child.told is not None:
            self._reports.finished([done for done in finished if done.delivery.id])
        self._dispatch()

    def _bury(self, child: Child) -> None:
        del self._children[child.number]
        self._loop.remove_reader(child.link.fileno())
        self._loop.remove_writer(child.link.fileno())
        child.close()
        if not self._children:
            self._all_gone.set()

    def _refill(self) -> None:
        staying = sum(not child.is_retiring for child in self._children.values())
        if staying < self.slots:
            self._fork()

    def _refill_later(self) -> None:
        def refill() -> None:
            self._refills.discard(timer)
            self._refill()

        timer = self._loop.call_later(REFILL_S, refill)
        self._refills.add(timer)

    # -- handing over --------------------------------------------------------------------------

    def _dispatch(self) -> None:
        if (
            self._is_paused
            or self._is_closing
            or not (self._waiting or self._overdue or self._notices)
        ):
            return
        children = [
            child
            for child in self._children.values()
            if child.pid and child.is_ready and not child.is_retiring
        ]
        idle = [child for child in children if not child.batches]
        while self._notices and idle:
            child, notice = idle.pop(0), self._notices.popleft()
            child.told = notice
            self._hand_over_alone(child, notice, frames.NOTICE)
        while self._overdue and idle:
            self._hand_over_expired(idle.pop(0), *self._overdue.popleft())
        for position, child in enumerate(idle):
            if not self._waiting:
                return
            # Those that are idle share what there is.
            share = -(-len(self._waiting) // (len(idle) - position))
            self._hand_over(child, self._pace.cut(self._waiting, share))
        for child in children:
            if child.takes_more:
                if not self._waiting or not self._pace.is_short(self._waiting[0].task):
                    return  # what may take long waits here, for whoever is idle first
                self._hand_over(child, self._pace.cut(self._waiting, len(self._waiting)))

    def _hand_over(self, child: Child, portion: Portion) -> None:
        deliveries, child.is_short = portion
        if not child.batches:
            child.silent_looks = 0
            if not self._pace.is_short(deliveries[0].task):
                self._report_start(child, deliveries[0], child.handed + 1)
        self._send(child, child.encode(deliveries))
        self._look_soon()

    def _hand_over_expired(self, child: Child, delivery: Delivery, limit_s: float) -> None:
        """Have a child run what follows the failure of a task that its hard limit has ended."""
        child.handles, child.expired_s = delivery, limit_s
        self._hand_over_alone(child, delivery, frames.EXPIRED)

    def _hand_over_alone(self, child: Child, delivery: Delivery, flags: int) -> None:
        """Give an idle child something that is not simply to be run."""
        child.is_short = False
        child.silent_looks = 0
        child.reported = child.handed + 1  # so that it is not taken back and run
        self._send(child, child.encode([delivery], flags))
        self._look_soon()

    def _send(self, child: Child, data: bytes) -> None:
        if not child.unsent:
            try:
                sent = child.link.send(data)
            except BlockingIOError:
                sent = 0
            except ConnectionError:
                return  # it is dead; the fork server will say so
            if sent == len(data):
                return
            data = data[sent:]
            self._loop.add_writer(child.link.fileno(), self._send_rest, child)
        child.unsent += data

    def _send_rest(self, child: Child) -> None:
        try:
            sent = child.link.send(child.unsent)
        except BlockingIOError:
            return
        except ConnectionError:
            sent = len(child.unsent)
        del child.unsent[:sent]
        if not child.unsent:
            self._loop.remove_writer(child.link.fileno())
            if child.is_retiring:
                child.link.shutdown(socket.SHUT_WR)

    def _report_start(self, child: Child, delivery: Delivery, claimed: int) -> None:
        # Late-acknowledged ones too: by this the broker knows which of them a worker died with.
        child.reported = claimed
        self._reports.started(delivery, child.pid)

    # -- hearing back --------------------------------------------------------------------------

    def _hear(self, child: Child, *, to_the_end: bool = False) -> None:
        """Take what the child has said, and what it points at; some of it, unless it is dead and this is the end."""
        finished: list[Finished] = []
        left = READS_MAX
        while to_the_end or left:
            left -= 1
            try:
                data = child.link.recv(ledger.READ_BYTES)
            except (BlockingIOError, ConnectionError):
                break
            if not data:
                self._loop.remove_reader(child.link.fileno())
                break
            child.unread += data
            self._heed(child, finished)
            if len(data) < ledger.READ_BYTES:
                break
        if finished:
            self._finish(finished)
        self._dispatch()
        if child.batches:
            self._look_soon()

    def _heed(self, child: Child, finished: list[Finished]) -> None:
        """Take in the bells that have arrived whole."""
        # Looked at where it lies: a large record arrives in hundreds of reads, and must not be copied for each.
        data = child.unread
        at, head = 0, frames.BELL.size
        while len(data) - at >= head:
            kind, number, begun, end = frames.BELL.unpack_from(data, at)
            if kind == frames.LIMITED:
                at += head
                child.silent_looks = 0
                continue
            if kind == frames.READY:
                at += head
                child.is_ready = True
                continue
            batch = next(found for found in child.batches if found.number == number)
            if kind == frames.SPILL:
                if len(data) - at < head + end:
                    break
                finished += child.spilled(batch, bytes(data[at + head : at + head + end]))
                at += end
            else:
                finished += child.records(batch, end, batch.first + begun)
            at += head
            child.silent_looks = 0
            if kind == frames.DONE:
                assert batch is child.batches.popleft(), "batches are run in order"
                assert begun == batch.finished_count == len(batch.deliveries), "a batch ends whole"
                if not child.batches:
                    child.is_withdrawn = False
                elif not self._pace.is_short(_first(child.batches[0])):
                    self._report_next(child)
        del data[:at]

    def _report_next(self, child: Child) -> None:
        first = child.batches[0].deliveries[:1]
        if first and first[0] is not None:
            self._report_start(child, first[0], child.batches[0].first + 1)

    def _finish(self, finished: list[Finished]) -> None:
        if not all(done.delivery.id for done in finished):
            # What is no task's is of no interest, but that it has ended.
            finished = [done for done in finished if done.delivery.id]
            if not finished:
                self._reports.finished([])
                return
        observe = self._pace.observe
        task, total_s, count = finished[0].delivery.task, 0.0, 0
        for delivery, _, _, _, runtime_s, _, _, _ in finished:
            if delivery.task != task:
                observe(task, total_s, count)
                task, total_s, count = delivery.task, 0.0, 0
            total_s += runtime_s
            count += 1
        observe(task, total_s, count)
        self._reports.finished(finished)

    # -- looking after the silent --------------------------------------------------------------

    def _look_soon(self) -> None:
        if self._timer is None and not self._is_closing:
            self._timer = self._loop.call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """See how far children have come that have said nothing, and take back what waits too long.

        Goes on only while it can learn something: not for a child whose only task is known to run.
        """
        self._timer = None
        finished: list[Finished] = []
        wanted = self.wanted_count
        for child in self._children.values():
            if child.batches and not child.is_long:
                finished += self._look_at(child)
                self._watch(child)
                self._look_soon()
        if finished:
            self._finish(finished)
        self._dispatch()
        if self.wanted_count < wanted:
            self._reports.changed()
        self._return_excess()

    # -- time limits ---------------------------------------------------------------------------

    def _watch(self, child: Child) -> None:
        """Be there when the next deadline of what the child runs has come."""
        due_ns = min((due_ns for due_ns in child.deadlines() if due_ns), default=0)
        if not due_ns or due_ns == child.watched_ns:
            return
        if child.timer is not None:
            child.timer.cancel()
        child.watched_ns = due_ns
        delay_s = max(0, due_ns - clock.monotonic_ns()) / 1e9
        child.timer = self._loop.call_later(delay_s, self._limit_reached, child)

    def _limit_reached(self, child: Child) -> None:
        """A deadline may have come, if the child is still at the same task."""
        child.timer = None
        child.watched_ns = 0
        if self._children.get(child.number) is not child:
            return
        now_ns = clock.monotonic_ns()
        soft_ns, hard_ns = child.deadlines()
        soft_s, hard_s = child.limits_s()
        delivery = child.current()
        if 0 < hard_ns <= now_ns and delivery is not None:
            child.expired = delivery
            if delivery is not child.handles:
                child.expired_s = hard_s
            self._tell_server(frames.KILL, child.number)
            return
        if 0 < soft_ns <= now_ns:
            child.interrupted_ns = soft_ns
            self._tell_server(frames.KILL, child.number, value=signal.SIGUSR1)
            if delivery is not None:
                self._reports.interrupted(delivery, soft_s)
        self._watch(child)

    def _return_excess(self) -> None:
        """Give back what waits behind long tasks and is materially more than wanted at hand."""
        if not self._waiting or not any(child.is_long for child in self._children.values()):
            return
        wanted = self.wanted_count
        running = sum(child.handed - child.finished for child in self._children.values())
        excess = running + len(self._waiting) - wanted
        if excess * 4 > wanted:
            count = min(excess, len(self._waiting))
            beyond = [self._waiting.pop() for _ in range(count)]
            self._reports.returned(beyond[::-1])

    def _look_at(self, child: Child) -> list[Finished]:
        claimed = child.claimed()
        is_same = claimed == child.looked_at and child.handed > child.finished
        child.looked_at = claimed
        child.silent_looks = child.silent_looks + 1 if is_same else 0
        # Records of tasks before the one that was claimed last are complete and visible: the
        # child has been in the kernel since. So a look never sees half a record.
        finished: list[Finished] = []
        for batch in child.batches:
            finished += child.records(batch, None, claimed - 1)
        if claimed > child.reported:
            self._report_running(child, claimed)
        if child.is_long and not child.is_withdrawn:
            self._waiting.extendleft(reversed(child.steal()))
        return finished

    def _report_running(self, child: Child, claimed: int) -> None:
        for batch in child.batches:
            index = claimed - 1 - batch.first
            if 0 <= index < len(batch.deliveries):
                delivery = batch.deliveries[index]
                if delivery is not None:
                    self._report_start(child, delivery, claimed)

    def _drop_waiting(self) -> list[Delivery]:
        dropped = list(self._waiting)
        self._waiting.clear()
        return dropped


def _first(batch: Batch) -> str:
    first = batch.deliveries[0] if batch.deliveries else None
    return first.task if first is not None else ""
