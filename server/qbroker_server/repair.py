"""`qbroker check` and `qbroker salvage`: look at a store that no broker runs on, and save what can be read of it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

from qbroker_proto import names
from qbroker_server.clock import SystemClock
from qbroker_server.core import check as invariants, rebuild, versions
from qbroker_server.core.errors import NewerVersion
from qbroker_server.core.limits import STEP_BYTES_MAX
from qbroker_server.core.ports import StoreError
from qbroker_server.engines import pages
from qbroker_server.engines.lmdb import LmdbEngine
from qbroker_server.lock import DataDirError, owned

FAULTS = 1
EX_USAGE = 64
EX_UNAVAILABLE = 69
EX_IOERR = 74

_SHOWN_MAX = 50
"""Lines of the table; --json has all of them."""

_DIRECTORY = click.Path(path_type=Path)


@click.command(
    epilog="""\b
    Exit codes:
      0   The store is whole.
      1   Records are damaged or contradict each other. A broker can run on it.
      64  DIR holds no store.
      69  A broker runs on it, or the directory cannot be used.
      74  A page cannot be read. Save the rest with: qbroker salvage DIR --to NEW

    \b
    Example:
      qbroker check /var/lib/qbroker
    """
)
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(directory: Path, *, as_json: bool) -> None:
    """Check every page, every record and every count of the store in DIR.

    No broker may run on it. The store is only read. The check needs about as much memory as the store has bytes.
    """
    with _store(directory, "check"):
        image = _read(directory, "check")
        view = pages.Rows(image.rows)
        try:
            found = [] if image.faults else _faults(view)
        except NewerVersion as error:
            _fail("check", f"{error}.", EX_IOERR)
    if as_json:
        report = {
            "pages": image.page_count,
            "rows": len(image.rows),
            "page_faults": image.faults,
            "record_faults": found,
            "is_whole": not image.faults and not found,
        }
        click.echo(json.dumps(report))
    else:
        _table("PAGE FAULTS", image.faults)
        _table("RECORD FAULTS", found)
        click.echo(
            f"{image.page_count} pages and {len(image.rows)} rows read: "
            f"{len(image.faults)} page faults, "
            + ("records not checked" if image.faults else f"{len(found)} record faults")
        )
        if image.faults:
            click.echo(f"Save what can be read: qbroker salvage {directory} --to NEW")
    raise SystemExit(EX_IOERR if image.faults else FAULTS if found else 0)


@click.command(
    epilog="""\b
    Exit codes:
      0   Everything is in the new store.
      1   The new store is whole, and something is lost: the list names it.
      64  DIR holds no store, or NEW is not empty.
      69  A broker runs on it, or a directory cannot be used.
      74  The new store could not be written, or a newer qbroker wrote the old one.

    \b
    Example:
      qbroker salvage /var/lib/qbroker --to /var/lib/qbroker-new
    """
)
@click.argument("directory", metavar="DIR", type=_DIRECTORY)
@click.option(
    "--to",
    "target",
    metavar="NEW",
    type=_DIRECTORY,
    required=True,
    help="A directory that is empty or does not exist.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def salvage(directory: Path, target: Path, *, as_json: bool) -> None:
    """Copy all that can be read of the store in DIR to a new store, and list what is lost.

    No broker may run on DIR, which is only read. Queues' contents, counts, indexes and reminders are made anew from the
    records. A message whose record or payload is damaged is left out. Tasks that were running may run once more.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        _fail(
            "salvage",
            f"{target} is not an empty directory; choose another one with --to.",
            EX_USAGE,
        )
    with _store(directory, "salvage"):
        image = _read(directory, "salvage")
    try:
        versions.check(pages.Rows(image.rows), versions.known())
        rows, lost = rebuild.rebuild(pages.Rows(image.rows), image.others, SystemClock().now_ms())
        contradictions = invariants.faults(pages.Rows(rows))
    except NewerVersion as error:
        _fail("salvage", f"{error}.", EX_IOERR)
    try:
        with owned(target):
            _write(target, rows)
    except DataDirError as error:
        _fail("salvage", str(error), EX_UNAVAILABLE)
    except StoreError as error:
        _fail("salvage", str(error), EX_IOERR)
    message_count = sum(one.what == "message" for one in lost)
    summary = (
        f"{len(rows)} rows are in {target}; {len(image.faults)} page faults, "
        f"{message_count} messages are known to be lost"
    )
    if as_json:
        report = {
            "rows": len(rows),
            "page_faults": image.faults,
            "lost": [one.as_dict() for one in lost],
            "may_be_old": image.may_be_old,
            "record_faults": contradictions,
        }
        click.echo(json.dumps(report))
    else:
        _table("PAGE FAULTS", image.faults)
        _table("LOST", [f"{one.what} {one.name!r}: {one.why}" for one in lost], most=None)
        _table("STILL WRONG", contradictions)
        click.echo(summary)
        if image.may_be_old:
            click.echo(
                "The list of free pages cannot be read, so some rows may be older than the last commit: "
                "tasks that had ended may run again."
            )
    raise SystemExit(FAULTS if image.faults or lost or contradictions else 0)


@contextmanager
def _store(directory: Path, command: str) -> Iterator[None]:
    """Hold the lock of a store while it is read."""
    if not (directory / "data.mdb").is_file():
        _fail(command, f"{directory} holds no store: there is no data.mdb in it.", EX_USAGE)
    try:
        with owned(directory):
            yield
    except DataDirError as error:
        _fail(command, str(error), EX_UNAVAILABLE)


def _faults(view: pages.Rows) -> list[str]:
    versions.check(view, versions.known())
    return invariants.faults(view)


def _read(directory: Path, command: str) -> pages.Image:
    try:
        return pages.read(directory / "data.mdb")
    except StoreError as error:
        _fail(command, str(error), EX_IOERR)


def _write(target: Path, rows: dict[bytes, bytes]) -> None:
    engine = LmdbEngine(target)
    try:
        waiting = sorted(rows.items())
        at = 0
        while at < len(waiting):
            txn = engine.begin(bytes_max=STEP_BYTES_MAX)
            size = 0
            try:
                while at < len(waiting) and size < STEP_BYTES_MAX:
                    key, value = waiting[at]
                    txn.put(key, value)
                    size += len(key) + len(value)
                    at += 1
                txn.commit()
            except Exception as error:
                raise StoreError(
                    f"The new store in {target} cannot be written: {error}."
                ) from error
    finally:
        engine.close()


def _table(title: str, lines: list[str], most: int | None = _SHOWN_MAX) -> None:
    if not lines:
        return
    click.echo(title)
    for line in lines[:most]:
        click.echo(f"  {names.escaped(line)}")
    if most is not None and len(lines) > most:
        click.echo(f"  and {len(lines) - most} more; --json has all of them")
    click.echo()


def _fail(command: str, sentence: str, code: int) -> NoReturn:
    click.echo(f"qbroker {command}: {sentence}", err=True)
    raise SystemExit(code)
