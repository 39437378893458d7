"""`qbroker multi`: several workers on one machine, in the background, started and stopped together.

It knows them by their pid files only: which `--pidfile` says, for each worker, by its letters. All options
that are not its own go to every worker, or with `-c:mail 4` and `-Q:1-3 big` to those that are named or
counted so.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from qbroker.masking import masked
from qbroker_worker.names import file_name, node_name

PIDFILE = "%n.pid"
LOGFILE = "%n%I.log"

LOOK_S = 0.1
"""How often `stopwait` and `restart` look whether a worker has gone."""

_FOR_SOME = re.compile(r"(--?[^:=]+):([^=]+)(=.*)?", re.DOTALL)


class Misused(click.ClickException):
    """What was asked cannot be read."""

    exit_code = 2


@dataclass(slots=True)
class Plan:
    """What the command line says."""

    nodes: list[str] = field(default_factory=list)
    """Names of the workers, with the host."""
    common: list[str] = field(default_factory=list)
    """Options of all of them."""
    own: dict[str, list[str]] = field(default_factory=dict)
    """Options of one."""
    settings: list[str] = field(default_factory=list)
    """Settings of all of them, from behind `--`."""
    pidfile: str = PIDFILE
    logfile: str = LOGFILE

    def pid_path(self, node: str) -> Path:
        """Where the worker's process id stands."""
        return Path(file_name(self.pidfile, node))

    def command(self, node: str) -> list[str]:
        """What starts the worker."""
        return [
            sys.executable,
            "-m",
            "qbroker",
            "worker",
            "--detach",
            "-n",
            node,
            "--pidfile",
            str(self.pid_path(node)),
            "--logfile",
            self.logfile,
            *self.common,
            *self.own.get(node, []),
            *(["--", *self.settings] if self.settings else []),
        ]


def read(arguments: Sequence[str]) -> Plan:
    """The plan of a command line: names first, or how many; then options. Raises Misused."""
    plan = Plan()
    rest = list(arguments)
    if "--" in rest:
        at = rest.index("--")
        plan.settings, rest = rest[at + 1 :], rest[:at]
    names: list[str] = []
    while rest and not rest[0].startswith("-"):
        names.append(rest.pop(0))
    if len(names) == 1 and names[0].isdecimal():
        names = [f"celery{number}" for number in range(1, int(names[0]) + 1)]
    if not names:
        raise Misused(
            "Which workers? Name them, or say how many: qbroker multi start mail images -A proj"
        )
    plan.nodes = [node_name(name) for name in names]
    for option, value in _options(rest):
        found = _FOR_SOME.fullmatch(option)
        if found is None:
            _take(plan, option, value)
            continue
        written = [found[1], *([found[3][1:]] if found[3] else []), *value]
        for node in _meant(found[2], plan.nodes):
            plan.own.setdefault(node, []).extend(written)
    return plan


def _options(words: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """Each option with the words behind it."""
    option: str | None = None
    value: list[str] = []
    for word in words:
        if word.startswith("-") and word != "-":
            if option is not None:
                yield option, value
            option, value = word, []
        else:
            value.append(word)
    if option is not None:
        yield option, value


def _take(plan: Plan, option: str, value: list[str]) -> None:
    name, equals, inline = option.partition("=")
    given = [inline] if equals else value
    match name:
        case "--pidfile" if given:
            plan.pidfile = given[0]
        case "--logfile" | "-f" if given:
            plan.logfile = given[0]
        case "-n" | "--hostname":
            raise Misused("The names of the workers come first, without -n.")
        case _:
            plan.common += [option, *value]


def _meant(which: str, nodes: Sequence[str]) -> list[str]:
    """The workers that "mail", "mail,images", "2" or "1-3" mean."""
    found: list[str] = []
    for part in which.split(","):
        first, dash, last = part.partition("-")
        if first.isdecimal() and (not dash or last.isdecimal()):
            found += nodes[int(first) - 1 : int(last or first)]
        else:
            found += [node for node in nodes if part in (node, node.partition("@")[0])]
    if not found:
        raise Misused(f"{which!r} is not one of the workers {', '.join(nodes)}.")
    return found


def _pid_of(plan: Plan, node: str) -> int | None:
    """The worker's process, if it runs."""
    try:
        pid = int(plan.pid_path(node).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError):
        return None
    return pid


def _start(plan: Plan) -> int:
    failures = 0
    for node in plan.nodes:
        code = subprocess.run(plan.command(node), check=False).returncode  # noqa: S603 - what the user has typed
        click.echo(f"> {node}: {'OK' if code == 0 else f'failed with exit code {code}'}")
        failures += code != 0
    return 1 if failures else 0


def _stop(plan: Plan, number: signal.Signals, *, waits: bool = False) -> int:
    pids: dict[str, int] = {}
    for node in plan.nodes:
        pid = _pid_of(plan, node)
        if pid is None:
            click.echo(f"> {node}: not running")
            continue
        pids[node] = pid
        os.kill(pid, number)
        click.echo(f"> {node}: {number.name.removeprefix('SIG')} -> {pid}")
    while waits and any(_pid_of(plan, node) == pid for node, pid in pids.items()):
        time.sleep(LOOK_S)  # noqa: TID251 - no child of ours, and it tells nobody when it has gone
    return 0


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    epilog="""\b
    Examples:
      qbroker multi start mail images -A proj -l INFO -c 4 -c:mail 10 -Q:mail mail
      qbroker multi restart mail images -A proj -l INFO -c 4 -c:mail 10 -Q:mail mail
      qbroker multi stop mail images
      qbroker multi start 3 -A proj --pidfile=/run/proj/%n.pid --logfile=/var/log/proj/%n%I.log
    """,
)
@click.argument(
    "verb", type=click.Choice(["start", "stop", "stopwait", "restart", "kill", "show", "names"])
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def multi(context: click.Context, /, verb: str, arguments: tuple[str, ...]) -> None:
    """Start and stop several workers of this machine, in the background.

    ARGUMENTS are the workers' names, or how many there are to be, and then options: those of
    `qbroker worker`, for all, or with :NAME for one and :1-3 for those by number. Their process ids are kept
    in %n.pid, or --pidfile.
    """
    plan = read(arguments)
    match verb:
        case "start":
            code = _start(plan)
        case "stop":
            code = _stop(plan, signal.SIGTERM)
        case "stopwait":
            code = _stop(plan, signal.SIGTERM, waits=True)
        case "restart":
            _stop(plan, signal.SIGTERM, waits=True)
            code = _start(plan)
        case "kill":
            code = _stop(plan, signal.SIGKILL)
        case "names":
            click.echo("\n".join(plan.nodes))
            code = 0
        case _:
            click.echo("\n".join(masked(" ".join(plan.command(node))) for node in plan.nodes))
            code = 0
    context.exit(code)
