"""`qctl top`: queues, workers and running tasks on the whole screen, anew every second."""

import select
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from qbroker import clock
from qbroker.cli.tables import Cell, Plain, ago, cell, duration, plain
from qbroker.cli.target import Target
from qbroker.client import Client
from qbroker.control import Control
from qbroker.serialization import Value

if TYPE_CHECKING:
    from rich.console import RenderableType

EVERY_S = 1.0
_ACTIVE_S = 0.5
"""How long workers may take to say what they run: who is slower is shown without."""
_ROWS_MAX = 200


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is seen at one moment."""

    at_ms: int
    url: str
    status: Plain
    queues: Sequence[Plain]
    running: Sequence[tuple[str, Value]]
    """Node name and Celery's TASK_INFO."""
    missing: Sequence[str]
    """Workers that did not answer."""


def take(client: Client) -> Snapshot:
    """Look once."""
    status = plain(client.status())
    queues = [plain(info) for info in client.list_queues()]
    control = Control(lambda: client, lambda: ("celery",))
    gathered = control.gather("active", {"safe": True}, timeout=_ACTIVE_S)
    running = [
        (node, info)
        for reply in gathered.replies
        for node, infos in reply.items()
        if isinstance(infos, list)
        for info in infos
    ]
    running.sort(key=lambda one: one[1]["time_start"] or 0)
    return Snapshot(
        clock.wall_ms(), client.url, status, queues, running[:_ROWS_MAX], gathered.missing
    )


def render(seen: Snapshot) -> "RenderableType":
    """The screen."""
    from rich.console import Group  # noqa: PLC0415 - slow to import, and only this verb draws
    from rich.text import Text  # noqa: PLC0415 - the same

    status = seen.status
    up = duration((seen.at_ms - status["started_ms"]) / 1000)
    came = sum(queue["in_rate"] for queue in seen.queues)
    went = sum(queue["out_rate"] for queue in seen.queues)
    head = (
        f"qbroker {status['version']} at {seen.url}: up {up}, "
        f"{came:,.1f} in/s, {went:,.1f} out/s, {status['scheduled_count']:,} scheduled, "
        f"{status['dead_count']:,} dead, {status['stored_bytes'] / 1_000_000:,.1f} MB"
    )
    queues = _table(
        ("queue", "ready", "with workers", "scheduled", "consumers", "oldest", "in/s", "out/s", ""),
        [
            (
                queue["name"],
                queue["ready_count"],
                queue["leased_count"],
                queue["scheduled_count"],
                queue["consumer_count"],
                ago(queue["oldest_ms"], seen.at_ms),
                f"{queue['in_rate']:.1f}",
                f"{queue['out_rate']:.1f}",
                "paused" if queue["paused_ms"] else "",
            )
            for queue in seen.queues
        ],
    )
    workers = _table(
        ("worker", "pid", "pool", "tasks at once", "has", "queues", "link"),
        [
            (
                worker["name"],
                str(worker["pid"]),
                worker["pool"],
                worker["concurrency"],
                worker["leased_count"],
                ", ".join(worker["queues"]),
                _link(worker, seen.missing),
            )
            for worker in status["workers"]
        ],
    )
    running = _table(
        ("running", "task", "args", "for", "worker", "pid"),
        [
            (
                info["id"],
                info["name"],
                info["args"],
                duration(seen.at_ms / 1000 - (info["time_start"] or seen.at_ms / 1000)),
                node,
                str(info["worker_pid"] or ""),
            )
            for node, info in seen.running
        ],
    )
    foot = Text("q: quit", style="dim")
    return Group(Text(head, style="bold"), queues, workers, running, foot)


def _link(worker: Plain, missing: Sequence[str]) -> str:
    if not worker["is_connected"]:
        return "lost"
    return "silent" if worker["name"] in missing else "up"


def _table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> "RenderableType":
    from rich import box  # noqa: PLC0415 - as above
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=False)
    for place, column in enumerate(columns):
        is_number = bool(rows) and isinstance(rows[0][place], int)
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(cell, row))
    return table


@click.command(epilog="Example:  qctl top")
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    default=EVERY_S,
    show_default=True,
    metavar="SECONDS",
    help="How often it looks.",
)
@click.option("--once", is_flag=True, help="Look once, print it and end.")
@click.pass_obj
def top(target: Target, every: float, *, once: bool) -> None:
    """Watch queues, workers and running tasks; q ends it."""
    from rich.console import Console  # noqa: PLC0415 - as above

    with target.reached() as client:
        if once or not sys.stdout.isatty():
            width = None if sys.stdout.isatty() else 10_000
            Console(width=width).print(render(take(client)))
            return
        with _keys() as pressed:
            _watch(Console(), lambda: render(take(client)), pressed, every)


def _watch(
    console: Value,
    draw: "Callable[[], RenderableType]",
    pressed: Callable[[float], str],
    every: float,
) -> None:
    from rich.live import Live  # noqa: PLC0415 - as above

    with Live(draw(), console=console, screen=True, auto_refresh=False) as live:
        while pressed(every) not in ("q", "Q", "\x03", "\x1b"):
            live.update(draw(), refresh=True)


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """What asks for a key that was pressed within so many seconds, or "", without waiting for Enter."""
    import termios  # noqa: PLC0415 - not on every system, and all other verbs are
    import tty  # noqa: PLC0415 - the same

    file = sys.stdin.fileno()
    if not sys.stdin.isatty():
        raise click.UsageError("qctl top needs a terminal; use qctl top --once")
    before = termios.tcgetattr(file)
    tty.setcbreak(file)

    def pressed(within_s: float) -> str:
        ready, _, _ = select.select([file], [], [], within_s)
        return sys.stdin.read(1) if ready else ""

    try:
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
