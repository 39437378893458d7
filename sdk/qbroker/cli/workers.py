"""`qctl worker`: one worker, or all of them."""

import json
from collections.abc import Sequence

import click

from qbroker.cli.queues import YES
from qbroker.cli.remote import TIMEOUT
from qbroker.cli.tables import Plain, counted, duration, echo_json, plain, show, show_facts, visible
from qbroker.cli.target import Absent, Missing, Target
from qbroker.client import Client
from qbroker.control import TIMEOUT_S, Control
from qbroker.serialization import Value

JSON = click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
NAME = click.argument("name", metavar="NAME")


@click.group()
def worker() -> None:
    """Look at workers, check one, stop one."""


@worker.command(epilog="Example:  qctl worker ls --json")
@JSON
@click.pass_obj
def ls(target: Target, *, as_json: bool) -> None:
    """List the workers the broker knows, also those whose link has just broken."""
    with target.reached() as client:
        found = _known(client)
    if as_json:
        echo_json(found)
    else:
        show_workers(found)


def show_workers(found: Sequence[Plain]) -> None:
    """The workers as a table."""
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
                _link(w),
            )
            for w in found
        ],
        empty="No workers: start one with qbroker worker -A proj.",
    )


def _link(worker: Plain) -> str:
    if not worker["is_connected"]:
        return "lost"
    return "going" if worker["is_draining"] else "up"


def _known(client: Client, name: str = "") -> list[Plain]:
    workers = [plain(found) for found in client.status().workers]
    return sorted((w for w in workers if name in ("", w["name"])), key=lambda w: w["name"])


@worker.command(name="show", epilog="Example:  qctl worker show celery@web1")
@NAME
@TIMEOUT
@JSON
@click.pass_obj
def show_one(target: Target, name: str, timeout: float | None, *, as_json: bool) -> None:
    """Show what the worker NAME is made of, what it has done and what it runs."""
    with target.reached() as client:
        known = _one(client, name)
        stats = _ask(client, "stats", name, timeout)
        active = _ask(client, "active", name, timeout)
    if as_json:
        click.echo(json.dumps({**known, "stats": stats, "active": active}))
        return
    pool = stats["pool"]
    facts: dict[str, Value] = {
        "pid": str(stats["pid"]),
        "up": duration(stats["uptime"]),
        "pool": f"{known['pool']}, {counted(pool['max-concurrency'], 'task')} at once",
        "processes": ", ".join(map(str, pool["processes"])),
        "queues": ", ".join(known["queues"]),
        "has": known["leased_count"],
        "runs": len(active),
        "has done": sum(stats["total"].values()),
        "memory": f"{stats['rusage']['maxrss'] / 1024:,.0f} MB at most",
        "version": known["version"],
        "link": _link(known),
    }
    show_facts(name, facts)
    rows = [(info["id"], info["name"], str(info["args"])) for info in active]
    show("Running", ("id", "task", "args"), rows, empty="It runs nothing.")


@worker.command(epilog="Example:  qctl worker check celery@web1")
@NAME
@TIMEOUT
@click.pass_obj
def check(target: Target, name: str, timeout: float | None) -> None:
    """Say whether the worker NAME works: it is connected, takes from a queue, and answers.

    Ends with 0 when it does, 3 when there is none of the name, 1 when it does not take from any queue or its link
    is lost, 69 when it does not answer.
    """
    with target.reached() as client:
        known = _one(client, name)
        if not known["is_connected"]:
            raise click.ClickException(f"{name} has lost its link to the broker")
        _ask(client, "ping", name, timeout)
        if known["is_draining"]:
            raise click.ClickException(f"{name} is connected, but finishes what it has and goes")
        if not known["queues"] or not known["prefetch_count"]:
            raise click.ClickException(f"{name} is connected, but takes from no queue")
    click.echo(visible(f"{name} takes from {', '.join(known['queues'])} and answers."))


@worker.command(epilog="Example:  qctl worker stop celery@web1 --yes")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@TIMEOUT
@YES
@click.pass_obj
def stop(target: Target, names: Sequence[str], timeout: float | None, *, yes: bool) -> None:
    """Have workers finish what they run, give back the rest, and end."""
    with target.reached() as client:
        for name in names:
            _one(client, name)
        if not yes:
            click.confirm(f"Stop {', '.join(names)}?", abort=True)
        for name in names:
            _ask(client, "shutdown", name, timeout)
            click.echo(f"{name} finishes what it runs, and ends.")


def _one(client: Client, name: str) -> Plain:
    known = _known(client, name)
    if not known:
        names = ", ".join(w["name"] for w in _known(client)) or "none"
        raise Absent(f"there is no worker {name!r}; connected: {names}")
    return known[0]


def _ask(client: Client, command: str, name: str, timeout: float | None) -> Value:
    control = Control(lambda: client, lambda: ("celery",))
    gathered = control.gather(command, destination=name, timeout=timeout or TIMEOUT_S)
    if not gathered.replies:
        raise Missing(f"{name} does not answer")
    return gathered.replies[0][name]
