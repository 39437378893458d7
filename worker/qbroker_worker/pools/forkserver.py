"""The process the children of the prefork pool come from: it has the app, and never had a connection.

It is forked first thing, while the worker has one thread and few modules. It loads the app, tells
what it found, and from then on only forks, reaps and kills for the parent. When the parent goes,
however it goes, it goes too, and so do the children.

With the start method "spawn" nothing is forked: the server and each child are fresh interpreters (spawn.py),
which load the app by its name. All else is the same, down to the sockets.
"""

import contextlib
import ctypes
import faulthandler
import gc
import json
import mmap
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import NamedTuple, NoReturn

from qbroker_worker.pools import child, frames
from qbroker_worker.pools.childguard import ChildGuard
from qbroker_worker.pools.spawn import Spawn
from qbroker_worker.values import Guard, Notice, Recycling, Restart, Runs

PR_SET_PDEATHSIG = 1

_USER = (signal.SIGUSR1, signal.SIGUSR2)
"""In a child the one says that a soft time limit may be reached, the other has it write down its stacks."""


class Refusal(Exception):
    """The app cannot be loaded: a sentence for the terminal, and details for the curious."""

    def __init__(self, sentence: str, details: str = "") -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.details = details


class Beside(NamedTuple):
    """Something that runs in a process of its own, forked once the app is loaded."""

    run: Callable[[], None]
    let_go: Callable[[], None]
    """Called in the process that stays, to let go of what is the other's."""
    fds: tuple[int, ...] = ()
    """What a fresh interpreter is given that runs it: its descriptors."""


class Loaded(NamedTuple):
    """What loading gives: facts for the parent, and how a child gets what it runs tasks with."""

    facts: bytes
    begin: Callable[[int, Guard], Runs]
    """Called in each child with its number, from 1, and what keeps time limits there."""
    recycling: Recycling = Recycling()
    before_fork: Callable[[], object] = lambda: None
    """Called where the app was loaded, before each child is forked."""
    beside: Beside | None = None
    start_method: str = "fork"
    """"fork" or "spawn": how children are begun, as the app or the command line says."""
    reload: Callable[[Restart], "Loaded"] | None = None
    """Imports modules, again where that is wanted, and gives what children are to begin with from then on."""
    spawn: Spawn | None = None
    """How a child is begun as a fresh interpreter; None: it is forked."""


Load = Callable[[], Loaded]


class ForkServer(NamedTuple):
    """The parent's end."""

    pid: int
    control: socket.socket

    def facts(self) -> bytes:
        """Wait for the app to be loaded. Raises Refusal when it cannot be."""
        try:
            kind, _, size = frames.CONTROL.unpack(_read(self.control, frames.CONTROL.size))
            data = _read(self.control, size)
        except EOFError:
            _, status = os.waitpid(self.pid, 0)
            raise Refusal(
                f"The process that loads the app ended: {how_it_ended(status)}."
            ) from None
        if kind == frames.REFUSED:
            os.waitpid(self.pid, 0)
            raise Refusal(*json.loads(data))
        return data

    def close(self) -> None:
        """Let it go, and wait until it is gone."""
        self.control.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


def fork(load: Load) -> ForkServer:
    """Fork the server. To be called before there are threads."""
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        theirs.close()
        return ForkServer(pid, ours)
    ours.close()
    return run_to_end(lambda: serve(theirs, parent, load))


def spawn(start: Spawn, *fds: int) -> ForkServer:
    """Have the server be a fresh interpreter, which is given these descriptors after its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        pid = start("server", (), (theirs.fileno(), *fds))
    return ForkServer(pid, ours)


def how_it_ended(status: int) -> str:
    """A wait status in words, as Celery says it: "signal 9 (SIGKILL)", "exitcode 1"."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return f"signal {number} ({signal.Signals(number).name})"
    return f"exitcode {os.WEXITSTATUS(status)}"


def run_to_end(main: Callable[[], None]) -> NoReturn:
    """Be a process of its own: nothing of the caller's stack, its `finally` or atexit runs here."""
    code = 1
    try:
        main()
        code = 0
    except Refusal as exc:
        print(exc.details + exc.sentence, file=sys.stderr)  # noqa: T201 - as below
    except SystemExit as exc:
        # As the interpreter does it: None is success, text an error, and of a number the last byte counts.
        code = exc.code & 0xFF if isinstance(exc.code, int) else int(exc.code is not None)
    except BaseException:  # noqa: BLE001 - the last frame of a process: whatever it was is shown
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = source.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def _die_with(parent: int) -> None:
    """Be killed when the process `parent` dies, where the system can do that."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _ignore(signum: int, frame: FrameType | None) -> None:
    """Do nothing. Unlike SIG_IGN, this is not inherited by programs that tasks start."""


def _leave_signals_to_parent() -> None:
    # A terminal's Ctrl-C and systemd's stop go to the whole group. What is to end, and when, is
    # for the parent to say; these processes end when it closes their sockets.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, *_USER):
        signal.signal(signum, _ignore)
    # A fresh interpreter begins with them held back, so that none ends it before it got here.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def belong_to(parent: int) -> None:
    """Be a process of the pool, begun by `parent`: end with it, and leave signals to the worker."""
    _die_with(parent)
    _leave_signals_to_parent()


def _take_signals_back() -> None:
    """For what a task forks: its parent is the task, which may want to terminate it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP, *_USER):
        signal.signal(signum, signal.SIG_DFL)


def _say(control: socket.socket, kind: int, data: bytes) -> None:
    control.sendall(frames.CONTROL.pack(kind, 0, len(data)) + data)


def serve(control: socket.socket, parent: int, load: Load) -> None:
    """Be the fork server of the process `parent`, in a process that is nothing else."""
    belong_to(parent)
    try:
        loaded = load()
    except Refusal as exc:
        _say(control, frames.REFUSED, json.dumps((exc.sentence, exc.details)).encode())
        raise SystemExit(1) from None
    _say(control, frames.FACTS, loaded.facts)
    if loaded.beside is not None:
        _begin_beside(control, loaded.beside, loaded.spawn)
    _settle_down()
    _Nursery(control, loaded).run()


def _settle_down() -> None:
    # What is loaded stays: the collector need not touch it, and its pages stay shared.
    gc.collect()
    gc.freeze()


def _begin_beside(control: socket.socket, beside: Beside, spawn: Spawn | None) -> None:
    if spawn is not None:
        spawn("beside", (), beside.fds)
        beside.let_go()
        return
    server = os.getpid()

    def live() -> None:
        _die_with(server)
        # That the server is gone shows in its socket's end, of which it is to have the only one.
        control.close()
        beside.run()

    if not os.fork():
        run_to_end(live)
    beside.let_go()


def live(number: int, fds: Sequence[int], loaded: Loaded) -> None:
    """Be the child of that number until it is over, in a process that is nothing else."""
    os.register_at_fork(after_in_child=_take_signals_back)
    for fd in fds:
        os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
    source, claims, memory = fds
    shared = mmap.mmap(memory, frames.SHARED_BYTES)
    os.close(memory)
    # A parent that is gone is how a child learns that it is over.
    with socket.socket(fileno=source) as parent, contextlib.suppress(ConnectionError):
        guard = ChildGuard(shared, parent)
        signal.signal(signal.SIGUSR1, guard.interrupt)
        # Not where a task's prints go: those become records of the log.
        faulthandler.register(signal.SIGUSR2, sys.__stderr__ or sys.stderr)
        runs = loaded.begin(number, guard)
        try:
            child.serve(parent, claims, shared, guard, runs, loaded.recycling)
        finally:
            runs.notify(Notice("worker_process_shutdown"))


class _Nursery:
    """Forks, reaps and kills children as the parent asks."""

    def __init__(self, control: socket.socket, loaded: Loaded) -> None:
        self._control = control
        self._loaded = loaded
        self._numbers: dict[int, int] = {}

    def run(self) -> None:
        # A signal that arrives between two calls is not missed: it leaves a byte in this pipe.
        bell, rope = os.pipe()
        os.set_blocking(bell, False)
        os.set_blocking(rope, False)
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(rope, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._control, selectors.EVENT_READ)
            selector.register(bell, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == bell:
                        with contextlib.suppress(BlockingIOError):
                            os.read(bell, 4096)
                        self._reap()
                    elif not self._obey((selector, bell, rope)):
                        self._end()
                        return

    def _obey(self, ours: tuple[selectors.BaseSelector, int, int]) -> bool:
        fds: list[int] = []
        try:
            data, fds, _, _ = socket.recv_fds(self._control, frames.CONTROL.size, 3)
            if data and len(data) < frames.CONTROL.size:
                data += _read(self._control, frames.CONTROL.size - len(data))
        except (EOFError, ConnectionError):
            data = b""
        if not data:
            return False
        kind, number, value = frames.CONTROL.unpack(data)
        if kind == frames.FORK:
            self._begin(number, fds, ours)
        elif kind == frames.RESTART:
            self._reload(_read(self._control, value))
        elif kind == frames.KILL:
            # Not reaped yet if it is listed, so the process id is still the child's.
            for pid, known in self._numbers.items():
                if known == number:
                    os.kill(pid, value)
        return True

    def _begin(
        self, number: int, fds: list[int], ours: tuple[selectors.BaseSelector, int, int]
    ) -> None:
        self._loaded.before_fork()
        server = os.getpid()
        if self._loaded.spawn is not None:
            pid = self._loaded.spawn("child", (str(number),), tuple(fds))
        else:
            pid = os.fork()
        if pid:
            self._numbers[pid] = number
            for fd in fds:
                os.close(fd)
            self._tell(frames.FORKED, number, pid)
            return
        run_to_end(lambda: self._live(number, fds, ours, server))

    def _live(
        self,
        number: int,
        fds: list[int],
        ours: tuple[selectors.BaseSelector, int, int],
        server: int,
    ) -> None:
        _die_with(server)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        selector, bell, rope = ours
        selector.close()
        os.close(bell)
        os.close(rope)
        live(number, fds, self._loaded)

    def _reload(self, wanted: bytes) -> None:
        modules, reloads = json.loads(wanted)
        restart = Restart(None if modules is None else tuple(modules), reloads)
        assert self._loaded.reload is not None, "who loads an app can load it again"
        try:
            self._loaded = self._loaded.reload(restart)
        except Exception as exc:  # noqa: BLE001 - whatever a module raises is told to who asked for it
            traceback.print_exc()
            _say(self._control, frames.FAILED, repr(exc).encode())
            return
        _settle_down()
        _say(self._control, frames.RESTARTED, self._loaded.facts)

    def _reap(self) -> None:
        # Each by its id: a process that the app itself started is for the app to wait for.
        for pid in list(self._numbers):
            # A child may have stopped, continued and ended since the last look: each is told, in order.
            while pid in self._numbers:
                seen, status = os.waitpid(pid, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
                if not seen:
                    break
                number = self._numbers[pid]
                if os.WIFSTOPPED(status):
                    self._tell(frames.STOPPED, number, os.WSTOPSIG(status))
                elif os.WIFCONTINUED(status):
                    self._tell(frames.STOPPED, number, 0)
                else:
                    del self._numbers[pid]
                    self._tell(frames.EXITED, number, status)

    def _tell(self, kind: int, number: int, value: int) -> None:
        # The parent may be gone already; the next read of the socket finds out.
        with contextlib.suppress(ConnectionError):
            self._control.sendall(frames.CONTROL.pack(kind, number, value))

    def _end(self) -> None:
        for pid in self._numbers:
            os.kill(pid, signal.SIGKILL)
        for pid in self._numbers:
            os.waitpid(pid, 0)
