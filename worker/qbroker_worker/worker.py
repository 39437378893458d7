"""Builds the parts and joins them: session, stream and pool; starts, drains, stops.

Phases: running → (TERM, first INT, HUP) warm: what runs is finished, the rest goes back
                → (QUIT, second INT) soft, where there is such a timeout: the same, for so many seconds
                → (the timeout, or another signal; else as soft) cold: what runs is ended and reported as lost.
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType

from qbroker.app import trace
from qbroker.request import plain_seconds
from qbroker.serialization import Value
from qbroker_proto import names
from qbroker_worker import clock
from qbroker_worker.autoscale import Autoscale
from qbroker_worker.clock import Clock
from qbroker_worker.journal import HEARTBEAT_S, Journal
from qbroker_worker.loading import LOST
from qbroker_worker.pools.pool import Pool, Restarted
from qbroker_worker.rates import Rates
from qbroker_worker.results import why_lost
from qbroker_worker.session import News, Session
from qbroker_worker.stream import Refused, Stream, limited, time_limits
from qbroker_worker.suspects import Suspects
from qbroker_worker.values import REVOKED, WORKER_LOST, Cancel, Delivery, Finished, Notice, Restart

logger = logging.getLogger(__name__)
task_logger = logging.getLogger(trace.__name__)

FLUSH_S = 30.0
"""How long a warm shutdown waits for the broker to take the last results."""

FLUSH_COLD_S = 5.0
"""The same for a cold one."""

SCALE_S = 1.0
"""How often a worker that has more slots than its least looks whether it needs them."""

TELL_S = 1.0
"""How long the app may take to hear that the worker ends, when that has nothing else to do."""

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)

RESTART = -1
"""Stands for an exit code: the program is to be begun anew."""


class Phase(IntEnum):
    """How far the worker is on its way out."""

    RUNNING = 0
    WARM = 1
    SOFT = 2
    COLD = 3


@dataclass(frozen=True, slots=True)
class Manners:
    """How a worker takes signals, and how much it takes at a time."""

    soft_timeout_s: float = 0.0
    """How long what runs may go on before a cold shutdown. Default: 0."""
    is_soft_when_idle: bool = False
    """Wait that long even if nothing runs. Default: False."""
    is_term_quit: bool = False
    """TERM means what QUIT does. Default: False."""
    prefetch_multiplier: int = 0
    """How many messages it holds at most, times its slots; 0: as many as are useful. Default: 0."""
    heard: frozenset[str] = frozenset()
    """Signals of those it sends that the app listens to. Default: none."""
    cancels_on_loss: bool = False
    """End late-acknowledged tasks that run when the link to the broker breaks. Default: False."""
    restarts: bool = True
    """HUP has the program begin anew, else it ends it warmly. Default: True."""


_USUAL = Manners()


Tell = Callable[[str, Mapping[str, Value], Callable[[bytes], None]], None]
"""Has a signal be sent beside the tasks: its name, its fields, and who is to hear that it was."""


def tell_nobody(_: str, _fields: Mapping[str, Value], told: Callable[[bytes], None]) -> None:
    """Nobody is there to hear it."""
    told(b"")


Beside = Callable[["Worker"], AbstractAsyncContextManager[object]]
"""What goes on beside the worker, from its start to its end."""


def alone(_: "Worker") -> AbstractAsyncContextManager[object]:
    """Nothing goes on beside it."""
    return nullcontext()


class Worker:
    """One worker, from registration to farewell. Everything here is on the event loop's thread."""

    def __init__(
        self,
        session: Session,
        pool: Pool,
        connect: Callable[["Worker"], Stream],
        *,
        name: str,
        address: str,
        rates: Rates | None = None,
        scale: Autoscale | None = None,
        manners: Manners = _USUAL,
        monotonic: Clock = clock.monotonic,
        journal: Journal | None = None,
        beside: Beside = alone,
        tell: Tell = tell_nobody,
    ) -> None:
        self._beside = beside
        self._tell = tell
        self._untold_count = 0
        self._beat_timer: asyncio.TimerHandle | None = None
        self._rates = rates or Rates({})
        self._suspects = Suspects()
        self._manners = manners
        self._given_up: dict[str, Delivery] = {}
        """What is being ended because the link broke, to be given back."""
        self._is_restarting = False
        self._scale = scale
        self._scale_timer: asyncio.TimerHandle | None = None
        self._monotonic = monotonic
        self._rate_timer: asyncio.TimerHandle | None = None
        self._session = session
        self._pool = pool
        self._name = name
        self._address = address
        self._journal = journal or Journal(name=name)
        self._stream = connect(self)
        self._journal.say = self._stream.say
        self._limits: dict[str, bytes] = {}
        """Of tasks whose time limits were changed: what says so in a message."""
        self._phase = Phase.RUNNING
        self._changed = asyncio.Event()
        self._failure = ""
        self._is_linked = False
        self._was_ready = False
        self._revoked_by: dict[str, int] = {}
        """With which signal deliveries are being ended that were revoked."""
        self._tells_received = task_logger.isEnabledFor(logging.INFO)

    @property
    def is_cold(self) -> bool:
        """Whether tasks were abandoned."""
        return self._phase is Phase.COLD

    @property
    def trouble(self) -> str:
        """Why it takes no tasks, in a sentence; "" when it does."""
        if self._failure:
            return self._failure
        if self._phase is not Phase.RUNNING:
            return "the worker is shutting down"
        if not self._is_linked:
            return f"there is no link to the broker at {self._address}"
        return "" if self._stream.queues else "the worker takes from no queue"

    @property
    def slots(self) -> int:
        """How many tasks run at once at most."""
        return self._pool.slots

    @property
    def held_count(self) -> int:
        """How many tasks it has, those that run included."""
        return self._session.held_count

    async def run(self) -> int:
        """Work until told to stop; the exit code."""
        async with self._beside(self):
            return await self._run()

    async def _run(self) -> int:
        pool = self._pool
        # Nothing is started before the broker has said what is ours.
        pool.pause()
        await pool.start(self)
        try:
            async with asyncio.TaskGroup() as group:
                streaming = group.create_task(self._keep_link())
                await self._until(lambda: self._phase > Phase.RUNNING)
                await self._finish(streaming)
                streaming.cancel()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TELL_S):
                    await self._until(lambda: not self._untold_count)
        finally:
            if self._beat_timer is not None:
                self._beat_timer.cancel()
            await pool.stop()
        if self._failure:
            logger.critical("%s", self._failure)
            return 1
        if self.is_cold:
            return 1
        return RESTART if self._is_restarting else 0

    async def _finish(self, streaming: asyncio.Task[None]) -> None:
        """Take nothing new; finish what runs or end it; tell the broker all of it."""
        pool, session = self._pool, self._session
        session.drain()
        session.release(self._rates.withdraw())
        session.release(self._suspects.withdraw())
        session.release(pool.withdraw())
        self._stream.wake()
        await self._until(lambda: self._is_idle or self.is_cold)
        if self._was_ready and not self.is_cold:
            self._notify(Notice("worker_shutdown"))
            await self._until(lambda: self._is_idle or self.is_cold)
        if self.is_cold:
            pool.kill()
        await self._flush(streaming)

    async def _flush(self, streaming: asyncio.Task[None]) -> None:
        """Wait until what was done is on the broker's disk, then leave; within bounds."""
        session = self._session
        try:
            async with asyncio.timeout(FLUSH_COLD_S if self.is_cold else FLUSH_S):
                await self._until(
                    lambda: streaming.done() or (self._pool.is_idle and session.is_flushed)
                )
                self._journal.leaving()
                session.leave()
                self._stream.wake()
                await self._until(lambda: streaming.done() or session.has_left)
        except TimeoutError:
            self._failure = self._failure or (
                f"The broker at {self._address} did not take the last results; those tasks may "
                "run again."
            )

    @property
    def _is_idle(self) -> bool:
        """Whether nothing runs, nor is about to."""
        return self._pool.is_idle and not self._suspects.has_begun

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            self._changed.clear()
            await self._changed.wait()

    async def _keep_link(self) -> None:
        try:
            await self._stream.run()
        except Refused as exc:
            self.failed(str(exc))
        finally:
            self._changed.set()

    # -- what the stream tells -----------------------------------------------------------------

    def linked(self, is_linked: bool) -> None:  # noqa: FBT001 - a plain callback
        """The link to the broker is there, or gone."""
        if is_linked:
            logger.info("Connected to qbroker://%s", self._address)
            if not self._is_linked:
                logger.info("%s ready.", self._name)
            if not self._was_ready:
                self._was_ready = True
                self._notify(Notice("worker_ready"))
            self._pool.resume()
            self._beat()
        else:
            if self._beat_timer is not None:
                self._beat_timer.cancel()
                self._beat_timer = None
            # What has not begun may be somebody else's by the time the link is back.
            self._pool.pause()
            if self._is_linked and self._manners.cancels_on_loss:
                self._cancel_late()
            self._journal.unlinked()
        self._is_linked = is_linked
        self._changed.set()

    def _beat(self) -> None:
        """Have the app know that the worker lives and is connected, again and again."""
        if "heartbeat_sent" in self._manners.heard:
            self._send_aside("heartbeat_sent", {})
            self._beat_timer = asyncio.get_running_loop().call_later(HEARTBEAT_S, self._beat)

    def _send_aside(self, name: str, fields: Mapping[str, Value]) -> None:
        def told(_: bytes) -> None:
            self._untold_count -= 1
            self._changed.set()

        self._untold_count += 1
        self._tell(name, fields, told)

    def _cancel_late(self) -> None:
        """End what is acknowledged late: somebody else may be running it soon."""
        late = [delivery for delivery in self._session.held() if delivery.is_late]
        for delivery in late:
            if self._pool.cancel(delivery, signal.SIGTERM):
                self._session.release([delivery])
            else:
                logger.warning(
                    "Ending task %s, for the link to the broker broke.", _shown(delivery)
                )
                self._given_up[delivery.id] = delivery

    def heard(self, news: News) -> None:
        """Deliveries have come, or gone."""
        if news.lost:
            for delivery in news.lost:
                logger.warning("Lost the lease of task %s", _shown(delivery))
            self._journal.lost(news.lost)
            self._pool.forget([one for one in news.lost if not self._set_aside_no_more(one)])
        for delivery, cancel in news.cancelled:
            self._cancel(delivery, cancel)
        for delivery in news.begun:
            self._submit(self._suspects.known(delivery))
        if news.fresh:
            self._journal.received(news.fresh)
            if self._tells_received:
                for delivery in news.fresh:
                    task_logger.info(trace.LOG_RECEIVED, _named(delivery))
            self._admit(news.fresh)
        if self._suspects.count:
            self._begin(())
        if self._phase is Phase.RUNNING:
            return
        # Draining gives back at once what arrives, and waits for what is said to be applied.
        self._stream.wake()
        self._changed.set()

    # -- how much runs at once -----------------------------------------------------------------

    def resize(self, slots: int) -> int:
        """Run so many tasks at once from now on, where the pool can; how many it does."""
        self._pool.resize(slots)
        self.changed()
        return self._pool.slots

    def autoscale(self, slots_max: int, slots_min: int) -> None:
        """Follow the work between these bounds from now on."""
        self._scale = Autoscale(slots_max, slots_min)
        self._follow()

    @property
    def bounds(self) -> tuple[int, int] | None:
        """The greatest and least number of slots it scales between; None: it does not."""
        return None if self._scale is None else (self._scale.slots_max, self._scale.slots_min)

    def restart_pool(self, wanted: Restart, restarted: Restarted) -> None:
        """Have the processes that run tasks begin anew, each when its task has ended."""
        self._pool.restart(wanted, restarted)

    def know(self, tasks: tuple[str, ...], rates: Mapping[str, float]) -> None:
        """The app has these tasks now, some of them with a rate."""
        for task in {*self._rates.limited, *rates}:
            self.set_rate(task, rates.get(task, 0.0))
        self._stream.know(tasks)

    def _follow(self) -> None:
        """Have as many slots as there is work for, if that is wanted."""
        if self._scale is None:
            return
        pool = self._pool
        held_count = self._session.held_count - self._rates.aside_count
        slots = self._scale.slots(self._monotonic(), pool.slots, held_count)
        if slots != pool.slots:
            logger.info("Scaling %s to %d.", "up" if slots > pool.slots else "down", slots)
            self.resize(slots)
        if pool.slots > self._scale.slots_min and self._scale_timer is None:
            self._scale_timer = asyncio.get_running_loop().call_later(SCALE_S, self._follow_again)

    def _follow_again(self) -> None:
        self._scale_timer = None
        if self._phase is Phase.RUNNING:
            self._follow()

    # -- how often a task starts ---------------------------------------------------------------

    def set_rate(self, task: str, per_s: float) -> None:
        """Start the task so many times a second from now on; 0 is as often as it comes."""
        self._admit(self._rates.set(task, per_s))
        self._hold_to_rates()

    def limit(self, task: str, soft_s: float | None, hard_s: float | None) -> None:
        """Have the task run so long from now on, also what has come and not begun."""
        self._limits[task] = time_limits(soft_s, hard_s)
        if self._phase is Phase.RUNNING:
            self._submit(self._pool.withdraw())

    def _submit(self, deliveries: Iterable[Delivery]) -> None:
        """Have the pool run these, within the limits their tasks have now."""
        if self._limits:
            found = list(deliveries)
            deliveries = [
                limited(one, self._limits[one.task]) if one.task in self._limits else one
                for one in found
            ]
            self._session.amend(deliveries)
        self._pool.submit(deliveries)

    def _admit(self, deliveries: Sequence[Delivery]) -> None:
        """Run what may start now, set aside what may soon, give back what may not for long."""
        rates = self._rates
        ready, excess = rates.sort(deliveries, self._monotonic())
        if ready:
            self._begin(ready)
            self._follow()
        if excess or rates.unwanted or rates.aside_count:
            self._hold_to_rates(excess)

    def _begin(self, deliveries: Sequence[Delivery]) -> None:
        """Give these to the pool; those that were lost too often, one by one when the broker knows."""
        suspects = self._suspects
        if free := suspects.sort(deliveries):
            self._submit(free)
        if not suspects.count or self._phase is not Phase.RUNNING:
            return
        in_pool_count = self._session.held_count - self._rates.aside_count - suspects.count
        if in_pool_count < self._pool.slots and (delivery := suspects.next()) is not None:
            self._session.begin(delivery)
            self._stream.wake()

    def _set_aside_no_more(self, delivery: Delivery) -> bool:
        """Whether it has not come to the pool yet; it will not."""
        return self._rates.discard(delivery) or self._suspects.discard(delivery)

    def _hold_to_rates(self, excess: Sequence[Delivery] = ()) -> None:
        rates = self._rates
        self._session.refuse(rates.unwanted)
        self._session.release(excess)
        self.changed()
        if self._rate_timer is None and rates.next_at is not None:
            delay_s = max(0.0, rates.next_at - self._monotonic())
            self._rate_timer = asyncio.get_running_loop().call_later(delay_s, self._rate_due)

    def _rate_due(self) -> None:
        self._rate_timer = None
        if self._phase is Phase.RUNNING and (ready := self._rates.due(self._monotonic())):
            self._begin(ready)
        self._hold_to_rates()

    def _cancel(self, delivery: Delivery, cancel: Cancel) -> None:
        """End a revoked delivery, if it has not begun, or if it is to be ended all the same."""
        number = _signal_number(cancel.signal) if cancel.is_terminated else None
        if self._set_aside_no_more(delivery) or self._pool.cancel(delivery, number):
            task_logger.info(trace.LOG_REVOKED, _named(delivery))
            self._journal.revoked(delivery)
            self._session.settle(delivery, REVOKED, b"")
            self._notify(Notice("task_revoked", 0, delivery.message))
            self.changed()
        elif number is not None:
            self._revoked_by[delivery.id] = number

    def _notify(self, notice: Notice) -> None:
        """Have the app told, if it listens."""
        if notice.signal in self._manners.heard:
            self._pool.notify(notice)

    # -- what the pool tells -------------------------------------------------------------------

    def started(self, delivery: Delivery, pid: int) -> None:
        """The task runs, and will go on for a while."""
        self._journal.started(delivery, pid)
        self._session.start(delivery, pid)
        self._stream.wake()

    def finished(self, finished: Sequence[Finished]) -> None:
        """These have ended."""
        self._journal.finished(finished)
        settle = self._session.settle
        for delivery, outcome, result, requeue, _, level, line, more in finished:
            was_given_up = self._given_up and self._given_up.pop(delivery.id, None) is delivery
            if was_given_up and outcome == REVOKED:
                self._session.release([delivery])
                continue
            if self._revoked_by:
                number = self._revoked_by.pop(delivery.id, 0)
                if number and outcome == REVOKED:
                    self._notify(Notice("task_revoked", number, delivery.message))
            if outcome == WORKER_LOST and self._phase < Phase.COLD:
                self._notify(Notice(LOST, 0, delivery.message, why_lost(more)))
            is_ours = settle(delivery, outcome, result, requeue=requeue, more=more)
            if level:
                task_logger.log(level, "%s", names.escaped_lines(line))
            if not is_ours:
                logger.warning(
                    "The result of task %s is dropped: its lease was lost while it ran.",
                    _shown(delivery),
                )
        if self._suspects.count:
            self._begin(())
        self.changed()
        if self._phase is not Phase.RUNNING:
            self._changed.set()

    def returned(self, deliveries: Iterable[Delivery]) -> None:
        """These were not started."""
        # The window first: what is given back is not to come again.
        self.changed()
        self._session.release(deliveries)

    def interrupted(self, delivery: Delivery, soft_s: float) -> None:
        """The task has come to its soft time limit."""
        task_logger.warning(
            trace.LOG_SOFT_TIME_LIMIT,
            {"limit": plain_seconds(soft_s), **_named(delivery)},
        )

    def changed(self) -> None:
        """The pool may want more or less."""
        # What is set aside takes no room from what can run.
        aside = self._rates.aside_count
        slots_max = self._pool.slots if self._scale is None else self._scale.slots_max
        wanted = max(self._pool.wanted_count, slots_max)
        if self._manners.prefetch_multiplier:
            wanted = min(wanted, slots_max * self._manners.prefetch_multiplier)
        self._session.want(wanted + aside, slots_max + aside)
        self._stream.wake()

    def failed(self, sentence: str) -> None:
        """It cannot go on."""
        self._failure = self._failure or sentence
        self._phase = Phase.COLD
        self._changed.set()

    # -- what the operator tells ---------------------------------------------------------------

    def signalled(self, number: int) -> None:
        """TERM and the first INT ask for a warm end; QUIT and the second INT for a cold one."""
        manners = self._manners
        phase = self._phase
        if number == signal.SIGUSR1:
            self._tell_stacks()
        elif number == signal.SIGHUP:
            self._is_restarting = manners.restarts and self._phase is Phase.RUNNING
            self._end(Phase.WARM)
        elif (
            number == signal.SIGQUIT
            or (number == signal.SIGTERM and manners.is_term_quit)
            or (number == signal.SIGINT and self._phase is not Phase.RUNNING)
            or self._phase is Phase.SOFT
        ):
            may_wait = manners.is_soft_when_idle or not self._pool.is_idle
            is_soft = manners.soft_timeout_s > 0 and may_wait and self._phase < Phase.SOFT
            self._end(Phase.SOFT if is_soft else Phase.COLD)
        else:
            self._end(Phase.WARM)
        if self._phase is not phase and "worker_shutting_down" in manners.heard:
            is_warm = self._phase is Phase.WARM
            fields = {
                "sig": signal.Signals(number).name,
                "how": "Warm" if is_warm else "Cold",
                "exitcode": 0 if is_warm else 1,
            }
            self._send_aside("worker_shutting_down", fields)

    def _end(self, phase: Phase) -> None:
        """Go on to this phase, if it is a later one."""
        if phase <= self._phase:
            return
        self._phase = phase
        self._changed.set()
        if phase is not Phase.SOFT:
            logger.warning("worker: %s shutdown (MainProcess)", phase.name.capitalize())
            return
        timeout_s = self._manners.soft_timeout_s
        logger.warning(
            "Initiating Soft Shutdown, terminating in %s seconds", plain_seconds(timeout_s)
        )
        asyncio.get_running_loop().call_later(timeout_s, self._end, Phase.COLD)

    def _tell_stacks(self) -> None:
        """Log what every thread is at, and have the children write down the same."""
        logger.warning("Stacks of the worker's process:\n%s", stacks())
        self._pool.dump()


def run(
    build: Callable[[], Worker],
    serve: Callable[[], None],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> int:
    """Run a worker's event loop on a thread; the main thread is the pool's, and takes signals.

    A signal reaches the loop as a byte in a socket, written by the C handler: no exception is thrown into
    whatever runs on the main thread, and a task that never returns to Python cannot hold it up.
    """
    near, far = socket.socketpair()
    near.setblocking(False)  # noqa: FBT003 - the standard library's signature
    far.setblocking(False)  # noqa: FBT003 - the standard library's signature
    for number in SIGNALS:
        signal.signal(number, _ignore)
    signal.set_wakeup_fd(far.fileno(), warn_on_full_buffer=False)
    code = 1
    ended = threading.Event()

    async def live() -> int:
        worker = build()

        def heed() -> None:
            for number in near.recv(64):
                if number in SIGNALS:
                    worker.signalled(number)

        asyncio.get_running_loop().add_reader(near.fileno(), heed)
        code = await worker.run()
        if worker.is_cold:
            # Threads may still be in tasks that were given up, the main one among them.
            logging.shutdown()
            sys.stderr.flush()
            sys.stdout.flush()
            os._exit(code)
        return code

    def main() -> None:
        nonlocal code
        try:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                code = runner.run(live())
        except Exception:
            logger.critical("The worker failed.", exc_info=True)
            os._exit(1)
        finally:
            ended.set()

    thread = threading.Thread(target=main, name="qbroker-worker")
    thread.start()
    serve()
    ended.wait()
    thread.join()
    signal.set_wakeup_fd(-1)
    near.close()
    far.close()
    return code


def stacks() -> str:
    """What each thread of this process is at."""
    threads = {thread.ident: thread.name for thread in threading.enumerate()}
    return "\n".join(
        f"{threads.get(ident, '?')} ({ident}):\n{''.join(traceback.format_stack(frame))}"
        for ident, frame in sys._current_frames().items()  # noqa: SLF001 - documented, and made for this
    )


def _named(delivery: Delivery) -> dict[str, Value]:
    """Name and id as the formats of log lines have them, in one line whatever a caller put in."""
    return {"name": names.escaped(delivery.task), "id": names.escaped(delivery.id)}


def _shown(delivery: Delivery) -> str:
    return f"{names.escaped(delivery.task)}[{names.escaped(delivery.id)}]"


def _signal_number(name: str) -> int:
    """The signal's number; TERM's where the system has none of the name."""
    full = name if name.startswith("SIG") else f"SIG{name}"
    return int(getattr(signal, full, signal.SIGTERM))


def _ignore(signum: int, frame: FrameType | None) -> None:
    """The byte in the socket has told already."""
