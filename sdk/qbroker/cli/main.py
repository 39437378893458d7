"""The `qbroker` command: global options here, sub-commands from the entry point group `qbroker.commands`.

A sub-command is imported when it is asked for, so `qbroker --help` imports neither server nor worker
nor the user's app.
"""

import copy
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import click

from qbroker._version import __version__
from qbroker.cli import options
from qbroker.cli.init import run_below_init
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value

COMMANDS_GROUP = "qbroker.commands"


@dataclass(frozen=True, slots=True)
class Preload:
    """The global options, for sub-commands to merge with their own: `context.obj`."""

    app: str | None = None
    broker: str | None = None
    workdir: str | None = None
    quiet: bool = False
    no_color: bool = False
    result_backend: str | None = None


class EntryPointGroup(click.Group):
    """A group whose commands are installed, by whoever brings them."""

    commands_group = COMMANDS_GROUP

    def _entry_points(self) -> dict[str, metadata.EntryPoint]:
        return {point.name: point for point in metadata.entry_points(group=self.commands_group)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._entry_points()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        own = super().get_command(ctx, cmd_name)
        if own is not None:
            return own
        point = self._entry_points().get(cmd_name)
        if point is None:
            return None
        try:
            command = point.load()
        except ImportError as exc:
            raise click.ClickException(
                f"the command {cmd_name!r} ({point.value}) cannot be imported: {exc}"
            ) from exc
        assert isinstance(command, click.Command), f"{point.value} is not a click command"
        return command


def _moved(context: click.Context, _param: click.Parameter, value: str | None) -> str | None:
    if value is not None:
        os.chdir(value)
    return value


def _global_options() -> list[click.Option]:
    """Celery's global options; `qbroker` takes them before a command and behind it."""
    return [
        click.Option(["-A", "--app"], callback=options.word, metavar="APP", help="Where the app is: proj, proj.celery or proj:app."),
        click.Option(["-b", "--broker"], callback=options.word, metavar="URL", help="The broker's address, in place of the app's."),
        click.Option(["--result-backend"], callback=options.word, metavar="URL", help="Where results are, in place of what the app says: qbroker://."),
        click.Option(["--config"], callback=options.word, metavar="MODULE", help="Module of the settings of an app that names none."),
        click.Option(["--loader"], callback=options.word, metavar="LOADER", help="No effect: apps import their modules themselves."),
        click.Option(
            ["--workdir"],
            metavar="DIR",
            type=click.Path(exists=True, file_okay=False),
            callback=_moved,
            help="Change to this folder first.",
        ),
        click.Option(["-C", "--no-color"], is_flag=True, help="No colours, also on a terminal."),
        click.Option(["-q", "--quiet"], is_flag=True, help="Print less."),
        click.Option(["--skip-checks"], is_flag=True, help="Skip Django's checks when a worker starts."),
    ]  # fmt: skip


_WITHOUT_APP = frozenset({"migrate-check", "multi", "serve"})
"""Commands that load no app, or hand their options on."""


def _late(context: click.Context, param: click.Parameter, value: Value) -> None:
    """Take a global option that stands behind the command."""
    if isinstance(value, str):
        options.word(context, param, value)
    if value in (None, False):
        return
    assert param.name is not None
    before = context.obj if isinstance(context.obj, Preload) else Preload()
    context.obj = _preloaded(before, {param.name: value})


def _preloaded(before: Preload, given: Mapping[str, Value]) -> Preload:
    """Merge options into those given before, and set what apps and Django read from the environment."""
    found = dict(given)
    if config := found.pop("config", None):
        os.environ["CELERY_CONFIG_MODULE"] = config
    if found.pop("skip_checks", False):
        os.environ["CELERY_SKIP_CHECKS"] = "true"
    if loader := found.pop("loader", None):
        click.echo(
            f"--loader {loader} has no effect: apps import their modules themselves.", err=True
        )
    if found.get("workdir") is not None:
        found["workdir"] = str(Path.cwd())
    return replace(before, **{name: value for name, value in found.items() if value})


class _QbrokerGroup(EntryPointGroup):
    """`qbroker`: its commands take the global options too."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None or cmd_name in _WITHOUT_APP:
            return command
        taken = {name for param in command.params for name in param.opts}
        more = []
        for option in _global_options():
            option.opts = [name for name in option.opts if name not in taken]
            if not option.opts or option.name in {param.name for param in command.params}:
                continue
            option.hidden = True
            option.expose_value = False
            option.callback = _moved_late if option.name == "workdir" else _late
            more.append(option)
        made = copy.copy(command)
        made.params = [*command.params, *more]
        return made


def _moved_late(context: click.Context, param: click.Parameter, value: Value) -> None:
    _late(context, param, _moved(context, param, value))


@click.group(
    cls=_QbrokerGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    params=_global_options(),
    epilog="""\b
Examples:
  qbroker serve                         run the broker, data in ./qbroker-data
  qbroker worker -A proj -Q mail -c 4   work on the queue `mail` with four processes
  qbroker -A proj worker                the same place for -A as in Celery
  qbroker dev -A proj                   broker and worker in one terminal
  qbroker -A proj inspect active        ask the workers; qctl does the same without an app
""",
)
@click.version_option(__version__, prog_name="qbroker", message="%(prog)s %(version)s")
@click.pass_context
def qbroker(context: click.Context, /, **given: Value) -> None:
    """Run the broker, its workers, and talk to both."""
    context.obj = _preloaded(Preload(), given)


def main(argv: Sequence[str] | None = None, *, is_init: bool | None = None) -> None:
    """Run the command and exit; errors are one sentence on standard error.

    With `is_init` it runs below a process that reaps orphans; by default if this is process 1.
    """
    if is_init is None:
        is_init = os.getpid() == 1
    if is_init:
        run_below_init()
    try:
        status = qbroker.main(args=None if argv is None else list(argv), standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("Aborted.", err=True)
        status = 130
    except click.ClickException as exc:
        exc.show()
        status = exc.exit_code
    except ImproperlyConfigured as exc:
        click.echo(f"Error: {exc}", err=True)
        status = 1
    sys.exit(status if isinstance(status, int) else 0)
