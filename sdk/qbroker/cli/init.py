"""The first process of a container: it passes signals on and reaps what its program leaves behind.

A process whose parent has ended becomes a child of process 1, and stays a zombie until process 1 waits for it.
The program itself must not do that: `waitpid(-1)` would take the exit codes that subprocess and the pools wait for.
So process 1 forks, and does nothing but wait, and the program runs as an ordinary process below it.
"""

import os
import signal

_OWN_FAULTS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
}
"""Signals by which the kernel reports a fault of this process."""

_NOT_PASSED_ON = {signal.SIGCHLD, signal.SIGTTIN, signal.SIGTTOU, signal.SIGPIPE}


def run_below_init() -> None:
    """Fork, and return in the child. The parent reaps until the child ends, and exits with its code."""
    heard = signal.valid_signals() - _OWN_FAULTS
    # Before the fork, so that no signal is lost between the two.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, heard)
    # Where it is ignored, the kernel reaps by itself and does not report the end of the child.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    parent = os.getpid()
    child = os.fork()
    if child:
        os._exit(_reap_until_end(child, heard))
    # A terminal sends ^C to its whole foreground group: with a group of its own the program gets it once.
    os.setpgid(0, 0)
    if os.getsid(0) == parent and os.isatty(0):
        os.tcsetpgrp(0, os.getpgrp())
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _reap_until_end(child: int, heard: set[signal.Signals]) -> int:
    while True:
        number = signal.sigwait(heard)
        if number not in _NOT_PASSED_ON:
            # Not reaped yet, so the process id is still the child's.
            os.kill(child, number)
        elif number == signal.SIGCHLD:
            # One signal may stand for several children.
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    code = os.waitstatus_to_exitcode(ended[1])
                    return code if code >= 0 else 128 - code
