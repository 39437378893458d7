"""A debugger inside a task, spoken to over a socket: `from qbroker.contrib import rdb; rdb.set_trace()`.

The worker logs where it listens; `telnet` or `nc` to it is a session of pdb. It listens on the loopback address only, unless
CELERY_RDB_HOST says another: whoever reaches it can do all that the task can. A task's time limits do not stop
meanwhile.
"""

import os
import socket
import sys
from pdb import Pdb
from types import FrameType
from typing import Self, TextIO

__all__ = [
    "CELERY_RDB_HOST",
    "CELERY_RDB_PORT",
    "DEFAULT_PORT",
    "Rdb",
    "debugger",
    "set_trace",
]

DEFAULT_PORT = 6899

CELERY_RDB_HOST = os.environ.get("CELERY_RDB_HOST") or "127.0.0.1"  # noqa: TID251 - Celery's switch
CELERY_RDB_PORT = int(os.environ.get("CELERY_RDB_PORT") or DEFAULT_PORT)  # noqa: TID251 - the same

_current: "list[Rdb | None]" = [None]


class Rdb(Pdb):
    """pdb, on the first free port from `port` on; being made it waits for somebody to connect."""

    me = "Remote Debugger"

    def __init__(
        self,
        host: str = CELERY_RDB_HOST,
        port: int = CELERY_RDB_PORT,
        port_search_limit: int = 100,
        port_skew: int = 0,
        out: TextIO | None = None,
    ) -> None:
        self.active = True
        self.out = out or sys.stdout
        listener = self.get_avail_port(host, port, port_search_limit, port_skew)
        with listener:
            self.port: int = listener.getsockname()[1]
            self.ident = f"{self.me}:{self.port}"
            self.say(f"{self.ident} waits for you: telnet {host} {self.port}")
            self._client, peer = listener.accept()
        self.remote_addr = ":".join(map(str, peer))
        self._handle = self._client.makefile("rw")
        super().__init__(completekey="tab", stdin=self._handle, stdout=self._handle)
        self.prompt = "(Rdb) "
        self.say(f"{self.ident} speaks with {self.remote_addr}")

    def get_avail_port(
        self, host: str, port: int, search_limit: int = 100, skew: int = 0
    ) -> socket.socket:
        """A socket that listens on the first free port; RuntimeError when none of `search_limit` is."""
        first = port + skew
        for number in range(first, first + search_limit):
            listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            try:
                listener.bind((host, number))
            except OSError:
                listener.close()
                continue
            listener.listen(1)
            return listener
        raise RuntimeError(
            f"{self.me} finds no free port from {first} on; give it others with CELERY_RDB_PORT"
        )

    def say(self, m: str) -> None:
        """Tell where the worker's output goes."""
        print(m, file=self.out, flush=True)

    def set_stepinstr(self) -> None:
        """Stop at the next line: `set_trace` of Python 3.13 and newer would stop on its own line."""
        self.set_step()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._close_session()

    def _close_session(self) -> None:
        if self.active:
            self.active = False
            self._handle.close()
            self._client.close()
            self.say(f"{self.ident} has ended with {self.remote_addr}")

    def do_continue(self, arg: str) -> bool | None:
        """End the session; the task goes on."""
        self._close_session()
        self.set_continue()
        return True

    do_c = do_cont = do_continue

    def do_quit(self, arg: str) -> bool | None:
        """End the session, and the task with it."""
        self._close_session()
        self.set_quit()
        return True

    do_q = do_exit = do_quit


def debugger() -> Rdb:
    """The session there is, or a new one."""
    rdb = _current[0]
    if rdb is None or not rdb.active:
        rdb = _current[0] = Rdb()
    return rdb


def set_trace(frame: FrameType | None = None) -> None:
    """Stop here, and wait for somebody to look."""
    debugger().set_trace(frame or sys._getframe().f_back)  # noqa: SLF001 - documented in spite of its name
