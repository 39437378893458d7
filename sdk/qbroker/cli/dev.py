"""`qbroker dev`: a broker and a worker in one terminal, while code is being written.

Both are the programs of production, started as children in process groups of their own. So Ctrl-C
reaches only this process, and it can stop the worker first: what that still finishes has a broker
to be reported to.
"""

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import click

from qbroker.cli.main import Preload
from qbroker.cli.options import word

PROGRAM = (sys.executable, "-m", "qbroker")
LISTENS = re.compile(r" listens on (?P<address>\S+?),")
NEVER = re.compile(r"(?!)")
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Spoke:
    """A child has written a line."""

    name: str
    line: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A child is gone; `code` is the negative signal number when a signal ended it."""

    name: str
    code: int

    def __str__(self) -> str:
        if self.code < 0:
            return f"the {self.name} was ended by {signal.Signals(-self.code).name}"
        return f"the {self.name} ended with exit code {self.code}"


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody wants everything to stop."""

    signum: int


Event = Spoke | Ended | Asked


class Child:
    """A program in a process group of its own, whose lines and end arrive as events."""

    def __init__(
        self, name: str, argv: Iterable[str], env: Mapping[str, str], events: "Events"
    ) -> None:
        self.name = name
        self._events = events
        self._process = subprocess.Popen(  # noqa: S603 - our own programs, with the user's options
            [*PROGRAM, *argv],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            process_group=0,
        )
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), name=f"{name}-reader", daemon=True
        )
        self._waiter = threading.Thread(target=self._wait, name=f"{name}-waiter", daemon=True)
        self._reader.start()
        self._waiter.start()

    def tell(self, signum: signal.Signals) -> None:
        """Send a signal."""
        # It may be gone already: its waiter tells.
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signum)

    def _read(self, lines: TextIO) -> None:
        with lines:
            for line in lines:
                self._events.put(Spoke(self.name, line.rstrip("\n")))

    def _wait(self) -> None:
        code = self._process.wait()
        # What it has started must not outlive it, and would keep the pipe open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join()
        self._events.put(Ended(self.name, code))


# SimpleQueue is the one queue a signal handler may put into: it takes no lock that the
# interrupted code might hold.
Events = queue.SimpleQueue[Event]


COLORS = {"broker": "cyan", "worker": "green", "dev": "yellow"}


class Terminal:
    """Where the lines of all programs meet, each behind the name of who said it."""

    def __init__(self, *, is_colored: bool) -> None:
        self._is_colored = is_colored

    def say(self, name: str, line: str) -> None:
        """Print a line with its speaker's name before it."""
        prefix = f"{name:<6} | "
        if self._is_colored:
            prefix = click.style(prefix, fg=COLORS[name])
        # A terminal that was closed is no reason to leave programs behind.
        with contextlib.suppress(OSError):
            click.echo(prefix + line)


class House:
    """The broker, then the worker; and the other way round at the end."""

    def __init__(self, terminal: Terminal, events: Events) -> None:
        self._terminal = terminal
        self._events = events
        self._children: dict[str, Child] = {}

    def start(self, name: str, argv: Iterable[str], env: Mapping[str, str]) -> None:
        """Start one more program."""
        self._children[name] = Child(name, argv, env, self._events)

    def until(self, ready: re.Pattern[str] = NEVER) -> re.Match[str] | Ended | Asked:
        """Pass lines on until one is as `ready` has it, or a program ended, or a stop was asked for."""
        while True:
            event = self._events.get()
            if isinstance(event, Spoke):
                self._terminal.say(event.name, event.line)
                if (match := ready.search(event.line)) is not None:
                    return match
                continue
            if isinstance(event, Ended):
                self._children.pop(event.name)
            return event

    def close(self) -> None:
        """Stop what runs, the last started first; a second request to stop kills."""
        # Without a broker a worker has nobody to give its results to, and need not wait for one.
        signum = signal.SIGTERM if "broker" in self._children else signal.SIGQUIT
        for child in reversed(list(self._children.values())):
            child.tell(signum)
            while child.name in self._children:
                if isinstance(self.until(), Asked):
                    self._terminal.say("dev", "killing what has not stopped yet")
                    for other in self._children.values():
                        other.tell(signal.SIGKILL)


def worker_options(**given: str | int | None) -> list[str]:
    """The options of `qbroker worker` that were given, as its arguments."""
    return [
        part
        for name, value in given.items()
        if value is not None
        for part in (f"--{name}", str(value))
    ]


@click.command(
    epilog="""\b
Example:
  qbroker dev -A proj -c 2
""",
)
@click.option(
    "-A",
    "--app",
    metavar="APP",
    callback=word,
    help="Where the app is: proj, proj.celery or proj:app.",
)
@click.option(
    "-Q", "--queues", callback=word, help="Comma-separated list of queues to consume from."
)
@click.option("-c", "--concurrency", type=int, help="Tasks at once.  [default: number of cores]")
@click.option("-P", "--pool", help="Where tasks run: prefork, threads, asyncio or solo.")
@click.option("-l", "--loglevel", default="INFO", show_default=True, help="What the worker logs.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".qbroker"),
    show_default=True,
    help="Where the broker keeps its data.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=7450,
    show_default=True,
    envvar="QBROKER_DEV_PORT",
    help="Where the broker listens on 127.0.0.1; 0 takes a free one.",
)
@click.pass_context
def dev(
    ctx: click.Context,
    app: str | None,
    queues: str | None,
    concurrency: int | None,
    pool: str | None,
    loglevel: str,
    data_dir: Path,
    port: int,
) -> None:
    """Run a broker and a worker in this terminal until Ctrl-C."""
    preload = ctx.find_object(Preload) or Preload()
    app = app or preload.app
    if app is None:
        raise click.UsageError("Which app? Name it: qbroker dev -A proj")
    env = os.environ | {"PYTHONUNBUFFERED": "1"}
    is_plain = preload.no_color or bool(os.environ.get("NO_COLOR")) or not sys.stdout.isatty()
    terminal = Terminal(is_colored=not is_plain)
    events = Events()
    for signum in STOP_SIGNALS:
        signal.signal(signum, lambda number, _: events.put(Asked(number)))

    house = House(terminal, events)
    try:
        listen = f"127.0.0.1:{port}"
        house.start("broker", ("serve", "--data-dir", str(data_dir), "--listen", listen), env)
        end = house.until(LISTENS)
        if isinstance(end, re.Match):
            url = f"qbroker://{end['address']}"
            options = worker_options(
                queues=queues, concurrency=concurrency, pool=pool, loglevel=loglevel
            )
            house.start("worker", ("-b", url, "-A", app, "worker", *options), env)
            terminal.say("dev", f"broker at {url}, data in {data_dir}")
            terminal.say("dev", f"next, in another terminal: qctl -b {url} status")
            end = house.until()
        if isinstance(end, Ended):
            terminal.say("dev", f"{end}; stopping what else runs")
        elif isinstance(end, Asked):
            terminal.say("dev", "stopping when running tasks are done; Ctrl-C once more kills")
    finally:
        house.close()
    ctx.exit(1 if isinstance(end, Ended) else 0)
