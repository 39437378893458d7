"""`qctl events`: what happens, a line each, until it is ended."""

import datetime as dt
import json

import click

from qbroker.cli.tables import visible
from qbroker.cli.target import Target
from qbroker.serialization import Value

_HEAD = ("type", "hostname", "timestamp", "utcoffset", "pid", "uuid", "clock")
_NAMES_MAX = 10_000


class Teller:
    """Events as lines. Only the first event of a task says its name, so it is remembered."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def line(self, event: dict[str, Value]) -> str:
        """An event in one line."""
        at = dt.datetime.fromtimestamp(event["timestamp"], dt.UTC).astimezone()
        what = event["type"].replace("-", " ")
        uuid = event.get("uuid")
        if uuid is not None:
            if "name" in event:
                if len(self._names) >= _NAMES_MAX:
                    self._names.clear()
                self._names[uuid] = event["name"]
            what += f": {self._names.get(uuid, '')}[{uuid}]"
        rest = ", ".join(
            f"{name}={event[name]}"
            for name in sorted(event)
            if name not in _HEAD and name != "name" and event[name] is not None
        )
        return f"{event['hostname']} [{at:%Y-%m-%d %H:%M:%S.%f}] {what}" + (
            f" {rest}" if rest else ""
        )


@click.command(epilog="Example:  qctl events --type 'task.*' --json")
@click.option("-d", "--dump", is_flag=True, help="A line for each event: what is always done here.")
@click.option(
    "--type",
    "routing_key",
    default="#",
    show_default=True,
    metavar="PATTERN",
    help="Only these: 'task.*', 'worker.heartbeat'.",
)
@click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
@click.option("--json", "as_json", is_flag=True, help="Each event as a line of JSON.")
@click.pass_obj
def events(
    target: Target, routing_key: str, limit: int | None, *, dump: bool, as_json: bool
) -> None:
    """Show what happens from now on: what workers and clients tell.

    Workers tell what becomes of tasks when they run with -E, or after qctl control enable_events.
    """
    del dump
    teller = Teller()
    with target.reached() as client:
        heard = client.events(routing_key)
        try:
            for count, (_, body, clock) in enumerate(heard, 1):
                event = json.loads(body) | {"clock": clock}
                click.echo(json.dumps(event) if as_json else visible(teller.line(event)))
                if count == limit:
                    return
        finally:
            heard.close()
