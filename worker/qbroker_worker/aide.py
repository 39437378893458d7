"""Runs the remote commands that the app has added, where the app is, beside the tasks and never in their way.

Two signals are sent there as well, which are not to wait for a task to end: that the worker lives, and that it will not for long.

In the prefork pool that is a process begun by the one that loaded the app; elsewhere a thread of this process. Both
hold one end of a socket, read a command, run it and write what it answered, one at a time, until the worker's
parent closes the other end.
"""

import asyncio
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from qbroker import _state, signals
from qbroker.serialization import Value
from qbroker.worker.control import ControlState, Panel, arguments_of, nok
from qbroker_worker.pools.forkserver import Beside, Load, Loaded
from qbroker_worker.values import Ask

logger = logging.getLogger(__name__)

Reply: TypeAlias = Callable[[bytes], None]

_SIZE = struct.Struct("<I")

SIGNALS = ("heartbeat_sent", "worker_shutting_down")
"""What is sent here, to those who listen."""


def is_wanted() -> bool:
    """Whether the app has anything to be run here."""
    return bool(Panel.data) or any(getattr(signals, name) for name in SIGNALS)


class Ends:
    """The two ends of the socket, before it is known who will serve."""

    def __init__(self, hostname: str) -> None:
        self._hostname = hostname
        self._ours, self._theirs = socket.socketpair()

    @property
    def fd(self) -> int:
        """The descriptor of the end that is for who serves."""
        return self._theirs.fileno()

    def beside(self, load: Load) -> Load:
        """The loader of a fork server, which also says that commands are to be served where the app has any."""
        load_too = beside(self._theirs, self._hostname, load)

        def load_here() -> Loaded:
            # Here is the fork server: the parent's end is the parent's alone.
            self._ours.close()
            return load_too()

        return load_here

    def elsewhere(self) -> "Aide":
        """What asks the process that was forked."""
        self._theirs.close()
        return Aide(self._ours)

    def here(self) -> "Aide":
        """What asks a thread of this process, which has the app."""
        # Of the first two ends a fork server may have had one.
        self._ours.close()
        self._theirs.close()
        return on_thread(self._hostname, _state.get_current_app())


def beside(theirs: socket.socket, hostname: str, load: Load) -> Load:
    """The loader, which also says that this end is to be served where the app has anything for that."""

    def load_too() -> Loaded:
        loaded = load()
        if not is_wanted():
            theirs.close()
            return loaded
        app = _state.get_current_app()
        run = lambda: serve(theirs, hostname, app)  # noqa: E731 - runs elsewhere
        return loaded._replace(beside=Beside(run, theirs.close, (theirs.fileno(),)))

    return load_too


class Aide:
    """The parent's half: asks, and passes on what is answered."""

    def __init__(self, link: socket.socket) -> None:
        link.setblocking(False)  # noqa: FBT003 - the standard library's signature
        self._link = link
        self._unread = b""
        self._waiting: dict[int, Reply] = {}
        self._last = 0
        self._is_heard = False

    def ask(self, ask: Ask, reply: Reply) -> None:
        """Have a command run; `reply` gets its answer as JSON. On the event loop's thread."""
        self._send(ask.command, ask.arguments.decode() or "{}", ask.words, reply)

    def tell(self, signal: str, fields: Mapping[str, Value], reply: Reply) -> None:
        """Have one of SIGNALS be sent; `reply` hears that it was, or could not be."""
        self._send(None, json.dumps(fields), (signal,), reply)

    def _send(
        self, command: str | None, arguments: str, words: Sequence[str], reply: Reply
    ) -> None:
        if self._link.fileno() < 0:
            reply(_lost("the process that runs this command is gone"))
            return
        if not self._is_heard:
            self._is_heard = True
            asyncio.get_running_loop().add_reader(self._link.fileno(), self._hear)
        self._last += 1
        body = json.dumps([self._last, command, arguments, list(words)]).encode()
        try:
            sent = self._link.send(_SIZE.pack(len(body)) + body)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            reply(_lost(f"the process that runs this command is gone: {exc}"))
            return
        if sent < _SIZE.size + len(body):
            # A socket's buffer full of commands that nobody runs: one of them does not end.
            if sent:
                self.close()
            reply(_lost("the process that runs this command does not keep up"))
            return
        self._waiting[self._last] = reply

    def _hear(self) -> None:
        try:
            data = self._link.recv(64 * 1024)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.close()
            return
        self._unread += data
        while len(self._unread) >= _SIZE.size:
            (size,) = _SIZE.unpack_from(self._unread)
            if len(self._unread) < _SIZE.size + size:
                return
            body = self._unread[_SIZE.size : _SIZE.size + size]
            self._unread = self._unread[_SIZE.size + size :]
            number, answer = json.loads(body)
            reply = self._waiting.pop(number, None)
            if reply is not None:
                reply(answer.encode())

    def close(self) -> None:
        """Let the server go; what it has not answered is said to be lost."""
        if self._is_heard:
            asyncio.get_running_loop().remove_reader(self._link.fileno())
            self._is_heard = False
        self._link.close()
        waiting, self._waiting = self._waiting, {}
        for reply in waiting.values():
            reply(_lost("the process that ran this command ended"))


def on_thread(hostname: str, app: Value) -> Aide:
    """What asks a thread of this process, which ends when that is closed."""
    ours, theirs = socket.socketpair()
    threading.Thread(
        target=serve, args=(theirs, hostname, app), name="qbroker-commands", daemon=True
    ).start()
    return Aide(ours)


def _lost(sentence: str) -> bytes:
    return json.dumps(nok(sentence)).encode()


def serve(source: socket.socket, hostname: str, app: Value) -> None:
    """Run commands until the other end is closed."""
    with source:
        while (head := _read(source, _SIZE.size)) and (body := _read(source, *_SIZE.unpack(head))):
            number, command, arguments, words = json.loads(body)
            try:
                answer = _run(ControlState(app, hostname), command, json.loads(arguments), words)
            except Exception as exc:
                logger.exception("The remote command %r failed", command)
                answer = nok(repr(exc))
            reply = json.dumps([number, json.dumps(answer, default=repr)]).encode()
            try:
                source.sendall(_SIZE.pack(len(reply)) + reply)
            except ConnectionError:
                return


def _run(
    state: ControlState, command: str | None, keywords: dict[str, Value], words: Sequence[str]
) -> Value:
    """Run a command, or send a signal where there is none."""
    if command is None:
        (name,) = words
        # The one is the worker's by its name, as in Celery; of the other the sender is whoever keeps the beat.
        sender = state.hostname if name == "worker_shutting_down" else state
        getattr(signals, name).send(sender, **keywords)
        return None
    if words:
        keywords |= arguments_of(command, Panel.meta[command], words)
    return Panel.data[command](state, **keywords)


def _read(source: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        try:
            more = source.recv(size - len(data))
        except ConnectionError:
            more = b""
        if not more:
            return b""
        data += more
    return data
