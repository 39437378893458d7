"""`qctl`: look at a broker and act on it, from a shell.

A verb asks the broker, which answers from its own state: no worker has to be up or awake. People get
tables, programs get `--json`. A verb that destroys says how much, and asks.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import click
from google.protobuf.message import Message

from qbroker import clock
from qbroker._version import __version__
from qbroker.client import Client
from qbroker.exceptions import ImproperlyConfigured, OperationalError
from qbroker.url import DEFAULT_URL

TIMEOUT_S = 5.0
EX_UNAVAILABLE = 69

Status = dict[str, Any]
"""What the broker says of itself, by the names of the protocol's `StatusReply`."""


class Unavailable(click.ClickException):
    """The broker cannot be reached; the message is a sentence that names it."""

    exit_code = EX_UNAVAILABLE


@dataclass(frozen=True, slots=True)
class Target:
    """The broker that is meant; what each verb gets from the group."""

    url: str

    @contextmanager
    def reached(self) -> Iterator[Client]:
        """A connection to it; whatever is in the way ends the command."""
        try:
            with closing(Client(self.url, timeout_s=TIMEOUT_S)) as client:
                yield client
        except OperationalError as error:
            advice = "start one with qbroker serve, or name another with -b"
            raise Unavailable(f"{error}; {advice}") from error
        except ImproperlyConfigured as error:
            raise click.UsageError(str(error)) from error


def plain(message: Message) -> Status:
    """A message of the protocol as a dict: every field by its name, also those that are 0."""
    return {field.name: _plain(getattr(message, field.name)) for field in message.DESCRIPTOR.fields}


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  qctl status                          queues and workers at a glance
  qctl -b qbroker://10.0.0.5:7450 status --json
  qctl purge mail                      throw away what waits in the queue `mail`
""",
)
@click.option(
    "-b",
    "--broker",
    "url",
    metavar="URL",
    envvar="QBROKER_URL",
    default=DEFAULT_URL,
    show_default=True,
    show_envvar=True,
    help="The broker.",
)
@click.version_option(__version__, prog_name="qctl", message="%(prog)s %(version)s")
@click.pass_context
def qctl(context: click.Context, url: str) -> None:
    """Look at a broker and act on it."""
    context.obj = Target(url)


@qctl.command()
@click.option("--json", "as_json", is_flag=True, help="Everything, as one JSON object.")
@click.pass_obj
def status(target: Target, *, as_json: bool) -> None:
    """Show the broker, its queues and its workers."""
    with target.reached() as broker:
        found = plain(broker.status())
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(headline(found, target.url, clock.wall_ms()))
    show(
        "Queues",
        ("queue", "ready", "with workers", "consumers"),
        [
            (q["name"], q["ready_count"], q["leased_count"], q["consumer_count"])
            for q in found["queues"]
        ],
        empty="No queues yet: the first message makes one.",
    )
    show(
        "Workers",
        ("worker", "pid", "pool", "tasks at once", "has", "queues", "version", "link"),
        [
            (
                w["name"],
                str(w["pid"]),
                w["pool"],
                w["concurrency"],
                w["leased_count"],
                ", ".join(w["queues"]),
                w["version"],
                "up" if w["is_connected"] else "lost",
            )
            for w in found["workers"]
        ],
        empty="No workers: start one with qbroker worker -A proj.",
    )


@qctl.command()
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def purge(target: Target, queue: str, *, yes: bool) -> None:
    """Throw away every message that waits in QUEUE."""
    with target.reached() as broker:
        ready = {q.name: q.ready_count for q in broker.status().queues}
        if queue not in ready:
            known = ", ".join(sorted(ready)) or "none"
            raise click.ClickException(f"there is no queue {queue!r}; there are: {known}")
        if not yes:
            click.confirm(f"Throw away {counted(ready[queue])} waiting in {queue!r}?", abort=True)
        click.echo(f"Threw away {counted(broker.purge_queue(queue))}.")


def counted(messages: int) -> str:
    """So many messages, in words."""
    return "1 message" if messages == 1 else f"{messages:,} messages"


def headline(found: Status, url: str, now_ms: int) -> str:
    """The broker in one line."""
    up = duration((now_ms - found["started_ms"]) / 1000)
    stored = found["stored_bytes"] / 1_000_000
    return (
        f"qbroker {found['version']} at {url}: up {up}, engine {found['engine']}, "
        f"{stored:,.1f} MB stored, {found['scheduled_count']:,} scheduled"
    )


def duration(seconds: float) -> str:
    """A duration by its two greatest units."""
    whole = max(0, int(seconds))
    parts = (whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60)
    texts = [f"{n} {unit}" for n, unit in zip(parts, ("d", "h", "min", "s"), strict=True)]
    first = next((place for place, n in enumerate(parts) if n), len(parts) - 1)
    return " ".join(texts[first : first + 2])


def show(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str | int]], *, empty: str
) -> None:
    """Print a table, numbers to the right; or the sentence for an empty one."""
    # It is slow to import, and half of the commands print no table.
    from rich import box  # noqa: PLC0415 - see above
    from rich.console import Console  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415 - see above

    click.echo()
    if not rows:
        click.echo(empty)
        return
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        is_number = isinstance(rows[0][place], int)
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(f"{cell:,}" if isinstance(cell, int) else cell for cell in row))
    # A pipe has no width: cutting lines for it would only hide figures from grep.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command and exit."""
    qctl.main(args=None if argv is None else list(argv), prog_name="qctl")
