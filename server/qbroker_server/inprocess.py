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

    def __init__(self) -> None:
        self.clock = MovableClock()
        self._engine = MemoryEngine()
        self._port = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._daemon: Daemon | None = None
        self._broker: Broker | None = None
        self._end: asyncio.Event | None = None
        self._crashes = False
        self._failure: BaseException | None = None
        self._changed = threading.Condition()
        self._step_count = 0

    @property
    def address(self) -> str:
        """Where it listens, or did: it comes back there."""
        return f"127.0.0.1:{self._port}"

    @property
    def is_up(self) -> bool:
        """Whether it listens."""
        return self._thread is not None

    def start(self) -> None:
        """Listen; answers when it does."""
        if self._thread is not None:
            return
        self._crashes = False
        listening = threading.Event()
        self._thread = threading.Thread(
            target=self._run, args=(listening,), name="qbroker-inprocess", daemon=True
        )
        self._thread.start()
        if not listening.wait(START_S) or self._failure is not None:
            self._thread = None
            raise RuntimeError("the broker in this process did not start") from self._failure

    def stop(self) -> None:
        """End in order: what was begun is finished."""
        self._finish()

    def crash(self) -> None:
        """End at once, as a kill would: what was committed is there after a `start`, all else is lost."""
        self._crashes = True
        self._finish()

    def _finish(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        assert self._loop is not None
        assert self._end is not None
        self._loop.call_soon_threadsafe(self._end.set)
        thread.join(START_S)

    def _run(self, listening: threading.Event) -> None:
        try:
            asyncio.run(self._serve(listening))
        except Exception as error:  # noqa: BLE001 - told to who waits for the start
            self._failure = error
        finally:
            listening.set()

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
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
        self._port = await daemon.start(broker.recover(), heeds_signals=False)
        listening.set()
        await self._end.wait()
        await (daemon.crash() if self._crashes else daemon.stop())

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
