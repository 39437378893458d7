"""Small tasks for pools, and somebody for pools to report to."""

import asyncio
import functools
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from logging import ERROR, INFO
from pathlib import Path
from typing import NoReturn

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker_worker.pools import forkserver, spawn
from qbroker_worker.pools.forkserver import ForkServer, Loaded, Refusal
from qbroker_worker.values import (
    FAILURE,
    RETRY,
    SUCCESS,
    TIMEOUT,
    Delivery,
    Finished,
    Guard,
    Notice,
    Ran,
    Recycling,
    Restart,
    Runs,
)

ROOT = Path(__file__).resolve().parents[2]

PATIENCE_S = 60.0
"""How long a test waits for what must come."""

_numbers = itertools.count(1)


def delivery(verb: str, argument: str | float = "", *, is_late: bool = False) -> Delivery:
    """A delivery that makes a toy do something."""
    message = json.dumps((verb, argument)).encode()
    return Delivery(f"id-{next(_numbers)}", 1, False, verb, "celery", is_late, message)


def _run(message: bytes, attempt: int, redelivered: bool) -> Ran:
    """Do as the message says."""
    verb, argument = json.loads(message)
    match verb:
        case "echo":
            return Ran(SUCCESS, str(argument).encode(), False, 10e-6, INFO, f"echo {argument}")
        case "facts":
            return Ran(SUCCESS, f"{attempt} {redelivered} {os.getpid()}".encode(), False, 10e-6)
        case "large":
            return Ran(SUCCESS, b"x" * argument, False, 10e-6)
        case "fail":
            return Ran(FAILURE, b"failed", False, 10e-6, ERROR, "it failed \udc80")
        case "again":
            return Ran(RETRY, b"", False, 10e-6, more=str(argument).encode())
        case "wait":
            # Until somebody opens the other end of the named pipe.
            began = os.open(f"{argument}.began", os.O_RDWR)
            os.write(began, b"!")
            Path(argument).read_bytes()
            os.close(began)
            return Ran(SUCCESS, b"waited", False, 1.0)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            raise SystemExit(argument)
        case _:
            pass
    raise AssertionError(f"no toy does {verb!r}")


def _compute_for_ever() -> NoReturn:
    # In a frame of its own: see threadguard on the loops of CPython 3.13.
    while True:
        sum(range(1_000))


def _run_until_ended(verb: str, door: str) -> Ran:
    """Do one of the toys that are to be ended."""
    pipe = os.open(door, os.O_RDWR)
    try:
        Path(f"{door}.began").write_bytes(b"!")
        if verb == "slow":
            os.read(pipe, 2)
        _compute_for_ever()
    except SystemExit:
        if verb != "deaf":
            raise
    finally:
        os.close(pipe)
    Path(f"{door}.began").write_bytes(b"!")
    _compute_for_ever()


def _expire(message: bytes, attempt: int, redelivered: bool) -> Ran:
    """What is left of it when its time was over."""
    verb, argument, *_ = json.loads(message)
    if verb == "die late":
        os.kill(os.getpid(), signal.SIGKILL)
    return Ran(TIMEOUT, f"handled {argument} {attempt} {redelivered}".encode(), False, 1.0)


async def _run_natively(message: bytes, attempt: int, redelivered: bool) -> Ran:
    """Do as the message says, on an event loop."""
    verb, argument = json.loads(message)
    match verb:
        case "async echo":
            await asyncio.sleep(0)
            return Ran(SUCCESS, str(argument).encode(), False, 10e-6)
        case "async wait":
            await asyncio.to_thread(Path(f"{argument}.began").write_bytes, b"!")
            await asyncio.to_thread(Path(argument).read_bytes)
            return Ran(SUCCESS, b"waited", False, 1.0)
        case "async wait for ever":
            await asyncio.to_thread(Path(f"{argument}.began").write_bytes, b"!")
            await asyncio.Event().wait()
        case "async for ever":
            await asyncio.Event().wait()
        case "async exit":
            raise SystemExit(argument)
        case _:
            pass
    raise AssertionError(f"no toy does {verb!r}")


def _is_async(task: str) -> bool:
    return task.startswith("async")


def _notify(notice: Notice) -> None:
    """Write down what is told into the file that the message names, if it names one."""
    if notice.message:
        Path(notice.message.decode()).write_text(f"{notice.signal} {notice.number} {os.getpid()}")


run = Runs(_run, _expire, _run_natively, _is_async, _notify, lambda wanted: reload(wanted).facts)
"""What toys are run with, where nothing has a time limit."""


def guarded(guard: Guard) -> Runs:
    """The same, with toys that have limits: "soft" and "hard" wait so many seconds for each, and then for ever.

    "hard late" is "hard", behind a gate.
    "spin" runs Python code until it is ended, "deaf" through its first end, and "slow" is in a call meanwhile.
    """

    def run_guarded(message: bytes, attempt: int, redelivered: bool) -> Ran:
        verb, argument, *limit = json.loads(message)
        if verb == "result limit":
            return Ran(SUCCESS, str(guard.result_bytes_max).encode(), False, 10e-6)
        if verb in ("spin", "deaf", "slow"):
            try:
                guard.begin(None, *limit or (None,))
                return _run_until_ended(verb, argument)
            finally:
                guard.end()
        if verb not in ("soft", "hard", "die late", "quick", "hard late"):
            return _run(message, attempt, redelivered)
        if verb == "hard late":
            _run(json.dumps(("wait", argument)).encode(), attempt, redelivered)
            argument = limit[0]
        try:
            try:
                soft = argument if verb == "soft" else None
                guard.begin(soft, None if soft else argument)
                if verb != "quick":
                    _compute_for_ever()
            finally:
                guard.end()
        except SoftTimeLimitExceeded:
            return Ran(FAILURE, b"interrupted", False, 1.0)
        return Ran(SUCCESS, b"quick", False, 10e-6)

    return run._replace(run=run_guarded)


def begin(_number: int, guard: Guard) -> Runs:
    """What a child runs."""
    return guarded(guard)


def load() -> Loaded:
    """What the fork server loads."""
    return Loaded(b"facts", begin, reload=reload)


def reload(wanted: Restart) -> Loaded:
    """What it loads again: the facts are what it was told. Of "broken" there is no module."""
    if wanted.modules == ("broken",):
        raise ImportError("it is broken")
    return load()._replace(facts=json.dumps(wanted).encode())


def load_short_lived() -> Loaded:
    """The same, with children that run three tasks each."""
    return Loaded(b"facts", begin, Recycling(tasks_max=3))


def load_lean() -> Loaded:
    """The same, with children that may grow to a KiB."""
    return Loaded(b"facts", begin, Recycling(memory_kib_max=1))


def load_fresh() -> Loaded:
    """The same, with children that are fresh interpreters."""
    program = "import sys; from tests.worker import toys; toys.live(*sys.argv[3:])"
    command = (sys.executable, "-c", program)
    return load()._replace(spawn=functools.partial(spawn.start, command))


def load_stillborn() -> Loaded:
    """The same, with children that end before they can take anything."""
    command = (sys.executable, "-c", "")
    return load()._replace(spawn=functools.partial(spawn.start, command))


def live(number: str, *fds: str) -> None:
    """Be such a child."""
    forkserver.belong_to(os.getppid())
    forkserver.live(int(number), [int(fd) for fd in fds], load())


def refuse() -> Loaded:
    """An app that cannot be loaded."""
    raise Refusal("There is no app.", "details")


def collapse() -> Loaded:
    """An app that ends its process while it is loaded."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


def fork_server(loader: str = "load") -> ForkServer:
    """A fork server with toys. Not forked from here: this process may have used grpc."""
    ours, theirs = socket.socketpair()
    program = (
        "import os, socket; from qbroker_worker.pools import forkserver; from tests.worker import toys;"
        "os.set_inheritable(3, False);"
        f"forkserver.serve(socket.socket(fileno=3), os.getppid(), toys.{loader})"
    )
    with theirs:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", program],
            {"PYTHONPATH": os.pathsep.join((str(ROOT), *sys.path))},
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)],
        )
    return ForkServer(pid, ours)


def lost_result(lost: Delivery, exc: Exception) -> tuple[bytes, bytes]:
    """The result of a task that was lost, and what else its settle says."""
    return f"{lost.id}: {exc}".encode(), b""


def gate(path: Path) -> Path:
    """A named pipe for `wait`."""
    os.mkfifo(path)
    os.mkfifo(f"{path}.began")
    return path


def _read_one(path: Path) -> bytes:
    while True:
        with path.open("rb", buffering=0) as pipe:
            # Nothing: a writer that had said its word closed only now.
            if word := pipe.read(1):
                return word


async def has_begun(path: Path) -> None:
    """Wait until the toy waits at this gate."""
    began = asyncio.create_task(asyncio.to_thread(_read_one, path.with_name(f"{path.name}.began")))  # noqa: TID251 - owned: awaited below
    done, _ = await asyncio.wait((began,), timeout=PATIENCE_S)
    if not done:
        # So that the thread that reads is not left behind.
        path.with_name(f"{path.name}.began").write_bytes(b"!")
        raise TimeoutError(f"no toy came to {path.name}")


async def release(path: Path) -> None:
    """Let the toy that waits at this gate go on."""
    loop = asyncio.get_running_loop()
    await loop.run_in_executor(None, path.write_bytes, b"go")


class Recorder:
    """Keeps what a pool reports, and waits for it."""

    def __init__(self) -> None:
        self.starts: list[tuple[Delivery, int]] = []
        self.done: list[Finished] = []
        self.back: list[Delivery] = []
        self.failures: list[str] = []
        self.changes = 0
        self.interruptions: list[tuple[Delivery, float]] = []
        self.submit: Callable[[Sequence[Delivery]], object] | None = None
        """Takes again what the pool returns, as the broker would: on a busy machine any task may be slow."""
        self._news = asyncio.Event()

    def started(self, delivery: Delivery, pid: int) -> None:
        self.starts.append((delivery, pid))
        self._news.set()

    def finished(self, finished: Sequence[Finished]) -> None:
        self.done.extend(finished)
        self._news.set()

    def returned(self, deliveries: Sequence[Delivery]) -> None:
        if self.submit is None:
            self.back.extend(deliveries)
        else:
            self.submit(deliveries)
        self._news.set()

    def interrupted(self, delivery: Delivery, soft_s: float) -> None:
        self.interruptions.append((delivery, soft_s))
        self._news.set()

    def changed(self) -> None:
        self.changes += 1
        self._news.set()

    def failed(self, sentence: str) -> None:
        self.failures.append(sentence)
        self._news.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait until reports have made it so."""
        async with asyncio.timeout(PATIENCE_S):
            while not is_so():
                self._news.clear()
                await self._news.wait()

    async def until_done(self, count: int) -> None:
        """Wait for so many to have finished."""
        await self.until(lambda: len(self.done) >= count)

    async def until_started(self, *wanted: Delivery) -> None:
        """Wait for these to be reported as started."""
        await self.until(lambda: {d.id for d in wanted} <= {d.id for d, _ in self.starts})

    def result(self, wanted: Delivery) -> bytes:
        """The result of this delivery, which has finished once."""
        (result,) = (done.result for done in self.done if done.delivery is wanted)
        return result

    def outcome(self, wanted: Delivery) -> int:
        """The outcome of this delivery, which has finished once."""
        (outcome,) = (done.outcome for done in self.done if done.delivery is wanted)
        return outcome


def echoes(count: int) -> list[Delivery]:
    """So many deliveries, each with an answer of its own."""
    return [delivery("echo", number) for number in range(count)]


def ids(deliveries: Iterable[Delivery]) -> list[str]:
    """Their ids, in order."""
    return [found.id for found in deliveries]
