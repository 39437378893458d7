"""Going on in the background, without a terminal. To be done before there are threads."""

import os
import sys
from pathlib import Path


def detach(output: Path, umask: int | None = None) -> None:
    """Go on in a process of its own session; this one ends. What it prints goes to the end of a file.

    Raises OSError, before this process ends, when the file cannot be opened.
    """
    if umask is not None:
        os.umask(umask)
    log = os.open(output, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os._exit(0)
    os.setsid()
    # Not the leader of its session any more, it can never be given a terminal again.
    if os.fork():
        os._exit(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(nothing)
    os.close(log)
