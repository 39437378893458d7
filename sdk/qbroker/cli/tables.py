"""How qctl shows things: tables to people, JSON to programs, counts and spans of time in words."""

import datetime as dt
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click
from google.protobuf.message import Message

from qbroker_proto import names

Plain = dict[str, Any]
"""A message of the protocol by the names of its fields."""

Cell = str | int


def plain(message: Message) -> Plain:
    """A message of the protocol as a dict: every field by its name, also those that are 0; none that are bytes."""
    found = {
        field.name: _plain(getattr(message, field.name)) for field in message.DESCRIPTOR.fields
    }
    return {name: value for name, value in found.items() if not isinstance(value, bytes)}


def _plain(value: object) -> object:
    if isinstance(value, Message):
        return plain(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return value


def echo_json(found: object) -> None:
    """Print what was found as one line of JSON."""
    click.echo(json.dumps(found))


def visible(text: str) -> str:
    """Text of others with escapes for what could drive the terminal; tabs and newlines stay."""
    return names.escaped_lines(text)


def counted(count: int, what: str = "message") -> str:
    """So many of them, in words."""
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


def duration(seconds: float) -> str:
    """A duration by its two greatest units."""
    whole = max(0, int(seconds))
    parts = (whole // 86400, whole // 3600 % 24, whole // 60 % 60, whole % 60)
    texts = [f"{n} {unit}" for n, unit in zip(parts, ("d", "h", "min", "s"), strict=True)]
    first = next((place for place, n in enumerate(parts) if n), len(parts) - 1)
    return " ".join(texts[first : first + 2])


def ago(then_ms: int, now_ms: int) -> str:
    """How long ago, or "" for never."""
    return duration((now_ms - then_ms) / 1000) if then_ms else ""


def moment(unix_ms: int) -> str:
    """A time as people and ISO 8601 write it, or "" for none."""
    if not unix_ms:
        return ""
    return dt.datetime.fromtimestamp(unix_ms / 1000, dt.UTC).isoformat(
        sep=" ", timespec="milliseconds"
    )


class Span(click.ParamType):  # type: ignore[type-arg,unused-ignore] # older clicks' is not generic
    """A span of time as an option has it, in milliseconds: "250ms", "90", "90s", "5m", "2h", "1d"."""

    name = "span"
    _FORM = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)?")
    _UNITS_MS: Mapping[str | None, int] = {
        "ms": 1,
        None: 1_000,
        "s": 1_000,
        "m": 60_000,
        "h": 3_600_000,
        "d": 86_400_000,
    }

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> int:
        found = self._FORM.fullmatch(str(value))
        if found is None:
            self.fail(f"{value!r} is not a duration, such as 250ms, 90s, 5m, 2h or 1d", param, ctx)
        return round(float(found[1]) * self._UNITS_MS[found[2]])


SPAN = Span()


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], *, empty: str) -> None:
    """Print a table, numbers to the right; or the sentence for an empty one."""
    # It is slow to import, and half of the commands print no table.
    from rich import box  # noqa: PLC0415 - see above
    from rich.table import Table  # noqa: PLC0415 - see above

    click.echo()
    if not rows:
        click.echo(empty)
        return
    table = Table(title=_text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, column in enumerate(columns):
        is_number = isinstance(rows[0][place], int)
        table.add_column(column, justify="right" if is_number else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(cell, row))
    _print(table)


def show_facts(title: str, facts: Mapping[str, Cell]) -> None:
    """Print what is known of one thing, a line each; what is "" is left out."""
    from rich.table import Table  # noqa: PLC0415 - see `show`

    table = Table.grid(padding=(0, 2))
    for name, value in facts.items():
        if value != "":
            table.add_row(name, _text(value))
    click.echo(visible(title))
    _print(table)


def cell(value: Cell) -> Any:  # noqa: ANN401 - a Text of rich's
    """What stands in a table, where each thing has its line."""
    return _text(names.escaped(value) if isinstance(value, str) else value)


def _text(value: Cell) -> Any:  # noqa: ANN401 - the same
    from rich.text import Text  # noqa: PLC0415 - see `show`

    # What users named is text, whatever brackets are in it.
    return Text(f"{value:,}" if isinstance(value, int) else visible(value))


def _print(table: Any) -> None:  # noqa: ANN401 - a Table of rich's
    from rich.console import Console  # noqa: PLC0415 - see `show`

    # A pipe has no width: cutting lines for it would only hide figures from grep.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)
