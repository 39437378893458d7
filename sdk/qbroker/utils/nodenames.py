"""Names of workers, by Celery's names: `celery@host`."""

import platform
import threading
from functools import cache
from os import getpid

from qbroker.messaging import Exchange, Queue

__all__ = [
    "NODENAME_DEFAULT",
    "WORKER_DIRECT_EXCHANGE",
    "anon_nodename",
    "default_nodename",
    "gethostname",
    "host_format",
    "node_format",
    "nodename",
    "nodesplit",
    "worker_direct",
]

NODENAME_DEFAULT = "celery"
WORKER_DIRECT_EXCHANGE = Exchange("C.dq2")


@cache
def gethostname() -> str:
    """This machine's name."""
    return platform.node()


def worker_direct(hostname: str | Queue) -> Queue:
    """The queue of a worker's own, where `worker_direct` is set."""
    if isinstance(hostname, Queue):
        return hostname
    return Queue(f"{hostname}.dq2", WORKER_DIRECT_EXCHANGE, hostname)


def nodename(name: str, hostname: str) -> str:
    """The name of the worker `name` on a host."""
    return f"{name}@{hostname}"


def anon_nodename(hostname: str | None = None, prefix: str = "gen") -> str:
    """A name of this process."""
    return nodename(f"{prefix}{getpid()}", hostname or gethostname())


def nodesplit(name: str) -> tuple[str | None, str]:
    """The name before the @, None where there is none, and the host."""
    before, at, host = name.partition("@")
    return (before, host) if at else (None, name)


def default_nodename(hostname: str | None) -> str:
    """The name of a worker that has only a host, or neither."""
    name, host = nodesplit(hostname or "")
    return nodename(name or NODENAME_DEFAULT, host or gethostname())


def node_format(s: str, name: str, **extra: str) -> str:
    """Text with the parts of a worker's name in the place of %n, %h, %d and %p."""
    shortname, host = nodesplit(name)
    return host_format(s, host, shortname or NODENAME_DEFAULT, p=name, **extra)


def host_format(s: str, host: str | None = None, name: str | None = None, **extra: str) -> str:
    """Text with a host's name in the place of %h, its first part of %n, and the rest of %d."""
    host = host or gethostname()
    first, _, rest = host.partition(".")
    letters = {"h": host, "n": name or first, "d": rest, "i": "%i", "I": "%I", **extra}
    thread = threading.current_thread()
    letters.setdefault("N", thread.name)
    parts = s.split("%%")
    for letter, value in letters.items():
        parts = [part.replace(f"%{letter}", value) for part in parts]
    return "%".join(parts)
