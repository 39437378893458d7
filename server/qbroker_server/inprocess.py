"""The broker on a thread of another program: for its tests, for notebooks.

It is the broker that `qbroker serve` runs, on the memory engine and a free port of the loopback address; what
differs is the clock, which can be set forward. The SDK finds it by entry point, so that it need not import the server.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from qbroker_server.broker import Broker, Step
from qbroker_server.clock import MovableClock
from qbroker_server.config import Config
from qbroker_server.core import queue, timetable
from qbroker_server.core.effects import Policy
from qbroker_server.core.ports import ReadTxn
from qbroker_server.daemon import Daemon
from qbroker_server.engines.memory import MemoryEngine

R = TypeVar("R")

START_S = 10.0
"""How long it may take to listen, or to end."""


class InProcessBroker:
    """A broker that begins with `start`, forgets everything with the object, and nothing with a `crash`."""

    def __init__(self, *, start_s: float = START_S) -> None:
        self.clock = MovableClock()
        self._start_s = start_s
        self._engine = MemoryEngine()
        self._port = 0
        self._lock = threading.Lock()
        """Held through a start and an end, which so come one after the other."""
        self._is_up = False
        self._thread: threading.Thread | None = None
        self._end: Future[bool] = Future()
        """Ends the thread, also before it has a loop; True: by a crash."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._daemon: Daemon | None = None
        self._broker: Broker | None = None
        self._failure: Exception | None = None
        self._changed = threading.Condition()
        self._step_count = 0

    @property
    def address(self) -> str:
        """Where it listens, or did: it comes back there."""
        return f"127.0.0.1:{self._port}"

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._is_up

    def start(self) -> None:
        """Listen; returns when it does. Raises RuntimeError if that fails or takes too long; it can be called again."""
        with self._lock:
            if self._is_up:
                return
            # A start that took too long may still be ending, and has the engine until then.
            if not self._joins():
                raise RuntimeError(
                    f"the broker in this process did not end within {START_S:g} seconds, "
                    "so it cannot start again yet; call start() later"
                )
            self._failure = None
            self._end = Future()
            listening = threading.Event()
            self._thread = threading.Thread(
                target=self._run,
                args=(listening, self._end),
                name="qbroker-inprocess",
                daemon=True,
            )
            self._thread.start()
            self._is_up = listening.wait(self._start_s) and self._failure is None
            if not self._is_up:
                failure = self._failure
                self._finish(crashes=True)
                raise RuntimeError("the broker in this process did not start") from failure

    def stop(self) -> None:
        """End in order: what was begun is finished. May be called at any moment, from any thread, and again."""
        with self._lock:
            self._finish(crashes=False)

    def crash(self) -> None:
        """End at once, as a kill would: what was committed is there after a `start`, all else is lost."""
        with self._lock:
            self._finish(crashes=True)

    def _finish(self, *, crashes: bool) -> None:
        self._is_up = False
        if not self._end.done():
            self._end.set_result(crashes)
        self._joins()

    def _joins(self) -> bool:
        """Wait for the thread to end; tells whether it has."""
        if self._thread is not None:
            self._thread.join(START_S)
        return self._thread is None or not self._thread.is_alive()

    def _run(self, listening: threading.Event, end: Future[bool]) -> None:
        try:
            asyncio.run(self._serve(listening, end))
        except Exception as error:  # noqa: BLE001 - `start` raises it
            self._failure = error
        finally:
            listening.set()

    async def _serve(self, listening: threading.Event, end: Future[bool]) -> None:
        self._loop = asyncio.get_running_loop()
        config = Config(listen=self.address, engine="memory", drain_ms=1_000, grace_ms=1_000)
        policy = Policy(
            result_ttl_ms=config.result_ttl_ms,
            memory_ms=config.memory_ms,
            deaths_max=config.max_deliveries,
            reserve_bytes=0,
        )
        self._broker = broker = Broker(self._engine, self.clock, policy)
        broker.listeners.append(self)
        self._daemon = daemon = Daemon(config, broker, self.clock)
        try:
            self._port = await daemon.start(broker.recover(), heeds_signals=False)
        except BaseException:
            # Its threads have begun.
            await daemon.crash()
            raise
        listening.set()
        crashes = await asyncio.wrap_future(end)
        await (daemon.crash() if crashes else daemon.stop())

    def stepped(self, step: Step) -> None:
        """Wake who waits for something to change."""
        del step
        with self._changed:
            self._step_count += 1
            self._changed.notify_all()

    # -- time ----------------------------------------------------------------------------------

    def next_ms(self) -> int | None:
        """When the next thing is due that the broker has been told of."""
        return self._read(timetable.next_ms)

    def move_to(self, now_ms: int) -> None:
        """Set the clock forward to that time, and do what is due then."""
        self.clock.ahead_ms += max(0, now_ms - self.clock.now_ms())
        assert self._daemon is not None
        self._ask(self._daemon.sweep())

    def _ask(self, work: Coroutine[Any, Any, object]) -> None:
        assert self._loop is not None
        future: Future[object] = asyncio.run_coroutine_threadsafe(work, self._loop)
        future.result(START_S)

    # -- what is under way ---------------------------------------------------------------------

    def unfinished(self) -> tuple[int, int]:
        """How many messages wait for a worker, and how many are with one."""
        return self._read(_unfinished)

    def waits_until_idle(self, timeout_s: float) -> bool:
        """Wait until no message waits for a worker or is with one; tells whether that came."""

        def is_idle() -> bool:
            return self.unfinished() == (0, 0)

        with self._changed:
            return self._changed.wait_for(is_idle, timeout_s)

    def _read(self, look: Callable[[ReadTxn], R]) -> R:
        assert self._broker is not None
        return self._broker.read(look)


def _unfinished(txn: ReadTxn) -> tuple[int, int]:
    counts = [queue.counts(txn, name) for name in queue.names(txn)]
    return sum(one.ready_count for one in counts), sum(one.leased_count for one in counts)
