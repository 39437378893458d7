"""`qctl schedule`: entries that the broker fires again and again."""

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any

import click

from qbroker import clock, envelope
from qbroker.cli.tables import (
    SPAN,
    Cell,
    Plain,
    counted,
    duration,
    echo_json,
    moment,
    plain,
    show,
    show_facts,
)
from qbroker.cli.target import Target
from qbroker.ids import uuid7
from qbroker.schedules import crontab, zone_name, zone_of
from qbroker.user import user_at_host

NAME = click.argument("name")
JSON = click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")


class Moment(click.ParamType):  # type: ignore[type-arg,unused-ignore] # older clicks' is not generic
    """A time as an option has it, in Unix milliseconds: ISO 8601, UTC where it names no zone."""

    name = "time"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        try:
            found = dt.datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is not a time, such as 2030-01-31T12:00:00+01:00", param, ctx)
        if found.tzinfo is None:
            found = found.replace(tzinfo=dt.UTC)
        return int(found.timestamp() * 1000)


class JsonValue(click.ParamType):  # type: ignore[type-arg,unused-ignore] # older clicks' is not generic
    """A list or an object of JSON, as an option has it."""

    def __init__(self, wanted: type, name: str) -> None:
        self._wanted = wanted
        self.name = name

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - the same
        try:
            found = json.loads(value)
        except ValueError:
            found = None
        if not isinstance(found, self._wanted):
            self.fail(f"{value!r} is not a JSON {self.name}", param, ctx)
        return found


MOMENT = Moment()


WITH_WAITING = click.option(
    "--with-waiting",
    is_flag=True,
    help="Also revoke the entry's messages that wait for their time, a worker or another try.",
)


def _dropped(count: int) -> str:
    """The clause about revoked messages that a sentence ends with."""
    return f" {counted(count, 'waiting message')} revoked." if count else ""


@click.group(name="schedule")
def schedule() -> None:
    """Look at periodic entries; make, change, pause and run them."""


def _state(info: Plain) -> str:
    if info["paused_ms"]:
        why = f": {info['paused_why']}" if info["paused_why"] else ""
        return f"paused by {info['paused_by'] or 'somebody'}{why}"
    return "" if info["next_ms"] else "ended"


@schedule.command(name="ls", epilog="Example:  qctl schedule ls --json")
@JSON
@click.pass_obj
def ls(target: Target, *, as_json: bool) -> None:
    """List the entries."""
    with target.reached() as broker:
        found = [plain(info) for info in broker.list_schedules()]
    if as_json:
        echo_json({"schedules": found})
        return
    show(
        "Schedules",
        ("name", "when", "task", "next", "runs", "skipped", "owner", ""),
        [
            (
                info["schedule"]["name"],
                info["schedule"]["timing"],
                info["task"],
                moment(info["next_ms"]),
                info["run_count"],
                info["skipped_count"],
                info["owner"],
                _state(info),
            )
            for info in found
        ],
        empty="No schedules yet: make one with qctl schedule add, or declare some with qbroker beat -A proj.",
    )


@schedule.command(name="show", epilog="Example:  qctl schedule show tidy")
@NAME
@JSON
@click.pass_obj
def show_schedule(target: Target, name: str, *, as_json: bool) -> None:
    """Show one entry: NAME."""
    with target.reached() as broker:
        info = plain(broker.show_schedule(name))
    _show(info, as_json=as_json)


def _show(info: Plain, *, as_json: bool) -> None:
    if as_json:
        echo_json(info)
        return
    one = info["schedule"]
    facts: dict[str, Cell] = {
        "when": one["timing"],
        "task": info["task"],
        "  args": info["argsrepr"],
        "  kwargs": info["kwargsrepr"],
        "queue": info["queue"],
        "next": moment(info["next_ms"]),
        "last": moment(info["last_ms"]),
        "  message": info["last_id"],
        "runs": info["run_count"],
        "skipped": info["skipped_count"],
        "note": info["note"],
        "state": _state(info) or "fires",
        "  since": moment(info["paused_ms"]),
        "overlap": one["overlap"],
        "catch up": one["catch_up"],
        "not before": moment(one["start_ms"]),
        "not after": moment(one["end_ms"]),
        "at most": one["runs_max"] or "",
        "owner": info["owner"] or "made by hand",
        "changed": moment(info["changed_ms"]),
    }
    for name in ("late_ms_max", "jitter_ms", "delay_ms", "lifetime_ms"):
        words = name.removesuffix("_max").removesuffix("_ms")
        facts[words] = _span(one[name])
    show_facts(f"Schedule {one['name']}", facts)


def _span(span_ms: int) -> str:
    if not span_ms:
        return ""
    return f"{span_ms} ms" if span_ms % 1000 else duration(span_ms / 1000)


def _timing(
    every: int | None, cron: str | None, at_ms: int | None, zone: str | None, *, relative: bool
) -> str | None:
    """The timing in the protocol's words; None when none was given."""
    given = [value for value in (every, cron, at_ms) if value is not None]
    if len(given) > 1:
        raise click.UsageError("--every, --cron and --at are three ways to say when: choose one")
    if (relative and every is None) or (zone and cron is None and not relative):
        raise click.UsageError("--relative goes with --every; --zone with --cron or --relative")
    try:
        named = "" if zone is None else zone_name(zone_of(zone))
        if every is not None:
            rounded = f" relative {named}" if relative else ""
            return f"every {every / 1000:g}{rounded}".rstrip()
        if cron is not None:
            # Celery's own reader, so that the same is refused with the same words.
            return str(crontab.from_string(cron).in_zone(zone_of(zone or "UTC")).timing())
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    return None if at_ms is None else f"at {at_ms}"


_OPTIONS = (
    click.option("--every", type=SPAN, help="How often: 30s, 5m, 2h, 1d."),
    click.option("--relative", is_flag=True, help="Rounded: at full minutes, hours or local days."),
    click.option("--cron", metavar="FIELDS", help="When: 'minute hour day-of-month month day-of-week'."),
    click.option("--at", "at_ms", type=MOMENT, help="Once, at that time."),
    click.option("--zone", metavar="ZONE", help="Whose clock counts: one of IANA's zones.  [default: UTC]"),
    click.option("--args", type=JsonValue(list, "list"), help="The task's arguments, a list of JSON."),
    click.option("--kwargs", type=JsonValue(dict, "object"), help="The task's keyword arguments, an object of JSON."),
    click.option("--queue", help="The queue to publish to."),
    click.option("--priority", type=click.IntRange(0, 9), help="The messages' priority; higher first."),
    click.option("--overlap", type=click.Choice(["allow", "skip", "queue"]), help="While the last run has not ended.  [default: allow]"),
    click.option("--catch-up", type=click.Choice(["none", "last", "all"]), help="Which missed ticks are made up for.  [default: last]"),
    click.option("--catch-up-max", type=click.IntRange(1, 1_000), help="With --catch-up all: so many, the newest.  [default: 100]"),
    click.option("--late-max", "late_ms_max", type=SPAN, help="Missed ticks older than this are not made up for."),
    click.option("--jitter", "jitter_ms", type=SPAN, help="Each message is due up to so much after its tick."),
    click.option("--delay", "delay_ms", type=SPAN, help="Each message is due so much after its tick."),
    click.option("--expires", "lifetime_ms", type=SPAN, help="Each message expires so much after it was published."),
    click.option("--start", "start_ms", type=MOMENT, help="No tick before that time."),
    click.option("--end", "end_ms", type=MOMENT, help="No tick after that time."),
    click.option("--max-runs", "runs_max", type=click.IntRange(min=0), help="How many ticks it fires; 0: any number."),
)  # fmt: skip


def _options(command: Any) -> Any:  # noqa: ANN401 - click's decorators
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@schedule.command(
    name="add",
    epilog="""\b
Examples:
  qctl schedule add tidy proj.tidy --every 10m --overlap skip
  qctl schedule add report proj.report --cron '0 6 * * mon-fri' --zone Europe/Berlin --args '["daily"]'
  qctl schedule add tidy proj.tidy --every 5m --change
""",
)
@NAME
@click.argument("task")
@_options
@click.option("--change", is_flag=True, help="Change the entry of this name, if there is one; what is not given stays.")  # fmt: skip
@WITH_WAITING
@JSON
@click.pass_obj
def add(
    target: Target,
    /,
    name: str,
    task: str,
    *,
    every: int | None,
    relative: bool,
    cron: str | None,
    at_ms: int | None,
    zone: str | None,
    args: list[Any] | None,
    kwargs: dict[str, Any] | None,
    queue: str | None,
    priority: int | None,
    change: bool,
    with_waiting: bool,
    as_json: bool,
    **options: int | str | None,
) -> None:
    """Make the entry NAME, which publishes TASK."""
    timing = _timing(every, cron, at_ms, zone, relative=relative)
    with target.reached() as broker:
        known = {info.schedule.name: info for info in broker.list_schedules()} if change else {}
        before = known.get(name)
        fields: dict[str, Any] = {"name": name}
        if before is not None:
            fields = _fields_of(before.schedule)
        fields |= {option: value for option, value in options.items() if value is not None}
        if timing is not None:
            fields["timing"] = timing
        if "timing" not in fields:
            raise click.UsageError("say when: with --every, --cron or --at")
        fields["message"] = envelope.template(
            before.schedule.message if before is not None else b"",
            task=task,
            args=args,
            kwargs=kwargs,
            queue=queue,
            priority=priority,
            name=name,
        )
        info = plain(broker.put_schedule(is_new=not change, with_waiting=with_waiting, **fields))
    if as_json:
        echo_json(info)
        return
    verb = "changed" if before is not None else "made"
    click.echo(
        f"Schedule {name!r} {verb}: {info['schedule']['timing']}, {_next(info)}."
        + _dropped(info["dropped_count"])
    )


def _fields_of(one: Any) -> dict[str, Any]:  # noqa: ANN401 - a Schedule of the protocol's
    return {field.name: getattr(one, field.name) for field in one.DESCRIPTOR.fields}


def _next(info: Mapping[str, Any]) -> str:
    if not info["next_ms"]:
        return _state(dict(info))
    wait_s = max(0.0, (info["next_ms"] - clock.wall_ms()) / 1000)
    return f"next in {duration(wait_s)}, at {moment(info['next_ms'])}"


@schedule.command(name="rm", epilog="Example:  qctl schedule rm tidy --yes")
@NAME
@WITH_WAITING
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(target: Target, name: str, *, with_waiting: bool, yes: bool) -> None:
    """Forget the entry NAME; the messages it has published stay, unless --with-waiting."""
    with target.reached() as broker:
        info = broker.show_schedule(name)
        if not yes:
            click.confirm(f"Remove schedule {name!r} ({info.schedule.timing})?", abort=True)
        dropped_count = broker.remove_schedule(name, with_waiting=with_waiting)
    click.echo(f"Schedule {name!r} removed.{_dropped(dropped_count)}")


@schedule.command(name="run", epilog="Example:  qctl schedule run tidy")
@NAME
@JSON
@click.pass_obj
def run(target: Target, name: str, *, as_json: bool) -> None:
    """Publish the task of the entry NAME now, beside its ticks."""
    with target.reached() as broker:
        task_id = broker.run_schedule(name, uuid7())
    if as_json:
        echo_json({"id": task_id})
        return
    click.echo(f"Schedule {name!r} published {task_id}.")


@schedule.command(
    name="pause", epilog="Example:  qctl schedule pause tidy --why 'the disk is full'"
)
@NAME
@click.option("--why", default="", help="The reason, shown with the schedule.")
@click.option("--by", default="", help="Who.  [default: user@host]")
@WITH_WAITING
@click.pass_obj
def pause(target: Target, name: str, why: str, by: str, *, with_waiting: bool) -> None:
    """Fire nothing of the entry NAME until it is resumed; what it has published stays."""
    with target.reached() as broker:
        info = broker.pause_schedule(
            name, by=by or user_at_host(), why=why, with_waiting=with_waiting
        )
    click.echo(
        f"Schedule {name!r} is paused; qctl schedule resume {name} goes on."
        + _dropped(info.dropped_count)
    )


@schedule.command(name="resume", epilog="Example:  qctl schedule resume tidy")
@NAME
@click.pass_obj
def resume(target: Target, name: str) -> None:
    """Fire the entry NAME again; ticks of the pause are not made up for."""
    with target.reached() as broker:
        info = plain(broker.resume_schedule(name))
    click.echo(f"Schedule {name!r} fires again: {_next(info)}.")


@schedule.command(
    name="next",
    epilog="""\b
Examples:
  qctl schedule next tidy -n 5
  qctl schedule next --cron '30 2 * * *' --zone Europe/Berlin -n 3
""",
)
@click.argument("name", required=False)
@click.option("-n", "--count", type=click.IntRange(1, 1_000), default=5, show_default=True, help="How many.")  # fmt: skip
@click.option("--cron", metavar="FIELDS", help="Of this crontab, in place of an entry.")
@click.option("--zone", metavar="ZONE", help="Whose clock counts and is shown.  [default: UTC]")
@JSON
@click.pass_obj
def next_ticks(
    target: Target,
    name: str | None,
    count: int,
    cron: str | None,
    zone: str | None,
    *,
    as_json: bool,
) -> None:
    """Tell when the entry NAME, or a crontab, fires next."""
    if (name is None) == (cron is None):
        raise click.UsageError("name an entry, or give a --cron")
    timing = "" if cron is None else _timing(None, cron, None, zone, relative=False) or ""
    with target.reached() as broker:
        ticks = list(broker.next_ticks(name=name or "", timing=timing, count=count))
    if as_json:
        echo_json({"ticks_ms": ticks})
        return
    try:
        tz = zone_of(zone or "UTC")
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    for tick in ticks:
        shown = dt.datetime.fromtimestamp(tick / 1000, tz)
        click.echo(shown.isoformat(sep=" ", timespec="milliseconds" if tick % 1000 else "seconds"))
    if not ticks:
        click.echo("Never any more.")
