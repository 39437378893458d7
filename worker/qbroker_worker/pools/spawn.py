"""Starts fresh interpreters of this program, where a process is not to be forked or cannot be.

What it is to be is said in words: a role, this process's id, what goes with the role, and the descriptors it is
given, which keep their numbers.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

Spawn = Callable[[str, Sequence[str], Sequence[int]], int]
"""Starts a process in a role, with more words and with descriptors of this process; answers its id."""

HELD_BACK = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""What must not reach a process that cannot heed it yet."""


def interpreter() -> tuple[str, ...]:
    """What starts an interpreter with the options of this one."""
    return (sys.executable, *subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined] # noqa: SLF001 - multiprocessing uses it for this


def start(command: Sequence[str], role: str, words: Sequence[str], fds: Sequence[int]) -> int:
    """Start `command` with these words behind it."""
    argv = [*command, role, str(os.getpid()), *words, *map(str, fds)]
    for fd in fds:
        os.set_inheritable(fd, True)  # noqa: FBT003 - the standard library's signature
    try:
        # Not by subprocess, which would reap it behind our back.
        return os.posix_spawn(argv[0], argv, os.environ, setsigmask=HELD_BACK)  # noqa: TID251 - what this process has is handed on whole
    finally:
        for fd in fds:
            os.set_inheritable(fd, False)  # noqa: FBT003 - the standard library's signature
