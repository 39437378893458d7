"""`qctl queue`: what queues hold, and what holds them."""

import click

from qbroker import clock
from qbroker.cli.tables import (
    SPAN,
    Cell,
    Plain,
    ago,
    counted,
    duration,
    echo_json,
    moment,
    plain,
    show,
    show_facts,
)
from qbroker.cli.target import Absent, Target
from qbroker.cli.tasks import show_tasks, task_of
from qbroker.client import Client
from qbroker.envelope import STAGES
from qbroker.exceptions import NotFound
from qbroker.user import user_at_host

NAME = click.argument("queue")
JSON = click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
YES = click.option("--yes", is_flag=True, help="Do not ask.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only say how many there are.")


@click.group(name="queue")
def queue() -> None:
    """Look at queues, and pause, empty, move or bound them."""


def _found(broker: Client, name: str) -> Plain:
    """The queue, or an end that names those there are."""
    try:
        return plain(broker.list_queues(name)[0])
    except NotFound as error:
        known = ", ".join(sorted(info.name for info in broker.list_queues())) or "none"
        raise Absent(f"there is no queue {name!r}; there are: {known}") from error


def _is_paused(info: Plain) -> str:
    if not info["paused_ms"]:
        return ""
    why = f": {info['paused_why']}" if info["paused_why"] else ""
    return f"paused by {info['paused_by'] or 'somebody'}{why}"


@queue.command(name="ls", epilog="Example:  qctl queue ls --json")
@JSON
@click.pass_obj
def ls(target: Target, *, as_json: bool) -> None:
    """List the queues."""
    with target.reached() as broker:
        found = [plain(info) for info in broker.list_queues()]
    if as_json:
        echo_json({"queues": found})
        return
    now_ms = clock.wall_ms()
    show(
        "Queues",
        ("queue", "ready", "with workers", "scheduled", "consumers", "oldest", "in/s", "out/s", "unknown task", ""),
        [
            (
                info["name"],
                info["ready_count"],
                info["leased_count"],
                info["scheduled_count"],
                info["consumer_count"],
                ago(info["oldest_ms"], now_ms),
                f"{info['in_rate']:,.1f}",
                f"{info['out_rate']:,.1f}",
                info["unknown_count"],
                _is_paused(info),
            )
            for info in found
        ],
        empty="No queues yet: the first message makes one.",
    )  # fmt: skip


@queue.command(name="show", epilog="Example:  qctl queue show mail")
@NAME
@JSON
@click.pass_obj
def show_queue(target: Target, queue: str, *, as_json: bool) -> None:
    """Show one QUEUE: its counts, rates and options."""
    with target.reached() as broker:
        info = _found(broker, queue)
    if as_json:
        echo_json(info)
        return
    _show(info)


def _show(info: Plain) -> None:
    now_ms = clock.wall_ms()
    options = info["options"]
    facts: dict[str, Cell] = {
        "ready": info["ready_count"],
        "  bytes": info["ready_bytes"],
        "  oldest": ago(info["oldest_ms"], now_ms),
        "  of tasks no worker knows": info["unknown_count"],
        "with workers": info["leased_count"],
        "scheduled": info["scheduled_count"],
        "consumers": info["consumer_count"],
        "in": f"{info['in_rate']:,.1f} a second",
        "out": f"{info['out_rate']:,.1f} a second",
        "state": _is_paused(info) or "delivers",
        "  since": moment(info["paused_ms"]),
        "max length": options["length_max"] or "",
        "max bytes": options["bytes_max"] or "",
        "overflow": options["overflow"],
        "max deliveries": options["max_deliveries"] or "",
    }
    for name, option in (
        ("message ttl", "message_ttl_ms"),
        ("expires", "expires_ms"),
        ("ageing", "ageing_ms"),
    ):
        facts[name] = duration(options[option] / 1000) if options[option] else ""
    show_facts(f"Queue {info['name']}", facts)


@queue.command(
    name="declare",
    epilog="Example:  qctl queue declare mail --max-length 100000 --overflow dead-letter --message-ttl 1d",
)
@NAME
@click.option("--max-length", "length_max", type=click.IntRange(min=0), help="Of waiting messages; 0: any.")  # fmt: skip
@click.option("--max-bytes", "bytes_max", type=click.IntRange(min=0), help="Of waiting messages; 0: any.")  # fmt: skip
@click.option("--overflow", type=click.Choice(["reject", "drop-head", "dead-letter"]), help="What a full queue does.")  # fmt: skip
@click.option("--message-ttl", "message_ttl_ms", type=SPAN, help="How long a message may wait; 0: for ever.")  # fmt: skip
@click.option("--max-deliveries", type=click.IntRange(min=0), help="How many deaths of workers a message survives; 0: as the broker says.")  # fmt: skip
@click.option("--expires", "expires_ms", type=SPAN, help="How long it is kept when empty and without workers; 0: for ever.")  # fmt: skip
@click.option("--ageing", "ageing_ms", type=SPAN, help="After how long a message counts as one priority higher; 0: never.")  # fmt: skip
@click.option("--new", "is_new", is_flag=True, help="Refuse when it exists with other options.")
@JSON
@click.pass_obj
def declare(
    target: Target, /, queue: str, *, is_new: bool, as_json: bool, **options: int | str | None
) -> None:
    """Make QUEUE, or change its options; those not given stay as they are."""
    given = {name: value for name, value in options.items() if value is not None}
    with target.reached() as broker:
        known: Plain = {}
        if not is_new:
            try:
                known = plain(broker.list_queues(queue)[0])["options"]
            except NotFound:
                known = {}
        info = plain(broker.declare_queue(queue, is_new=is_new, **{**known, **given}))
    if as_json:
        echo_json(info)
        return
    _show(info)


@queue.command(
    name="pause", epilog="Example:  qctl queue pause mail --why 'the relay is down, INC-42'"
)
@NAME
@click.option("--why", default="", help="The reason, shown to people who ask why nothing runs.")
@click.option("--by", help="Who pauses it.  [default: you]")
@JSON
@click.pass_obj
def pause(target: Target, queue: str, why: str, by: str | None, *, as_json: bool) -> None:
    """Deliver nothing of QUEUE until it is resumed; what runs goes on."""
    by = by or user_at_host()
    with target.reached() as broker:
        _found(broker, queue)
        info = plain(broker.pause_queue(queue, by=by, why=why))
    if as_json:
        echo_json(info)
        return
    click.echo(f"Queue {queue!r} is paused; go on with: qctl queue resume {queue}")


@queue.command(name="resume", epilog="Example:  qctl queue resume mail")
@NAME
@JSON
@click.pass_obj
def resume(target: Target, queue: str, *, as_json: bool) -> None:
    """Deliver from QUEUE again."""
    with target.reached() as broker:
        _found(broker, queue)
        info = plain(broker.resume_queue(queue))
    if as_json:
        echo_json(info)
        return
    click.echo(f"Queue {queue!r} delivers: {counted(info['ready_count'])} waiting.")


@queue.command(name="purge", epilog="Example:  qctl queue purge mail --dry-run")
@NAME
@YES
@DRY_RUN
@JSON
@click.pass_obj
def purge(target: Target, queue: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Throw away every message that waits in QUEUE; scheduled ones stay."""
    purge_queue(target, queue, yes=yes, dry_run=dry_run, as_json=as_json)


def purge_queue(target: Target, queue: str, *, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Do it, for both spellings of the verb."""
    with target.reached() as broker:
        ready = _found(broker, queue)["ready_count"]
        if dry_run:
            _tell({"purged_count": 0, "ready_count": ready}, f"Would throw away {counted(ready)}.", as_json=as_json)  # fmt: skip
            return
        if not yes:
            click.confirm(
                f"Throw away {counted(ready)} waiting in {queue!r}?", abort=True, err=as_json
            )
        purged = broker.purge_queue(queue)
    _tell({"purged_count": purged}, f"Threw away {counted(purged)}.", as_json=as_json)


def _tell(found: Plain, sentence: str, *, as_json: bool) -> None:
    if as_json:
        echo_json(found)
    else:
        click.echo(sentence)


@queue.command(name="peek", epilog="Example:  qctl queue peek mail --limit 3")
@NAME
@click.option("--limit", type=click.IntRange(1, 1000), default=10, show_default=True, help="How many.")  # fmt: skip
@JSON
@click.pass_obj
def peek(target: Target, queue: str, limit: int, *, as_json: bool) -> None:
    """Show the first messages that wait in QUEUE; they stay there."""
    with target.reached() as broker:
        _found(broker, queue)
        page = broker.list_tasks(queue=queue, stages=[STAGES.index("queued")], limit=limit)
    if as_json:
        echo_json({"tasks": [task_of(info) for info in page.tasks]})
        return
    show_tasks(page.tasks, f"Next in {queue}", empty=f"Nothing waits in {queue!r}.")


@queue.command(name="move", epilog="Example:  qctl queue move mail mail-slow")
@click.argument("source")
@click.argument("destination")
@YES
@DRY_RUN
@JSON
@click.pass_obj
def move(
    target: Target, source: str, destination: str, *, yes: bool, dry_run: bool, as_json: bool
) -> None:
    """Put what waits in SOURCE into DESTINATION, behind what is there."""
    with target.reached() as broker:
        ready = _found(broker, source)["ready_count"]
        if dry_run:
            _tell({"moved_count": 0, "ready_count": ready}, f"Would move {counted(ready)}.", as_json=as_json)  # fmt: skip
            return
        if not yes:
            click.confirm(
                f"Move {counted(ready)} from {source!r} to {destination!r}?",
                abort=True,
                err=as_json,
            )
        moved = broker.move_queue(source, destination)
    _tell({"moved_count": moved}, f"Moved {counted(moved)}.", as_json=as_json)


@queue.command(name="rm", epilog="Example:  qctl queue rm mail-old --yes")
@NAME
@YES
@JSON
@click.pass_obj
def rm(target: Target, queue: str, *, yes: bool, as_json: bool) -> None:
    """Remove QUEUE and its options. It must be empty."""
    with target.reached() as broker:
        _found(broker, queue)
        if not yes:
            click.confirm(f"Remove the queue {queue!r}?", abort=True, err=as_json)
        broker.remove_queue(queue)
    _tell({"removed": queue}, f"Removed {queue!r}.", as_json=as_json)
