"""What commands of one's own stand on, by Celery's names: click's classes, and how a sub-command is found."""

from importlib import metadata
from typing import Final

import click

from qbroker.cli.main import COMMANDS_GROUP
from qbroker.serialization import Value

__all__ = ["CeleryCommand", "CeleryDaemonCommand", "CeleryOption", "installed"]

CeleryCommand: Final = click.Command
CeleryDaemonCommand: Final = click.Command


class CeleryOption(click.Option):
    """An option; Celery's `help_group` and `default_value_from_context` are taken."""

    def __init__(self, *args: Value, **kwargs: Value) -> None:
        self.help_group: str | None = kwargs.pop("help_group", None)
        self.default_value_from_context: str | None = kwargs.pop("default_value_from_context", None)
        super().__init__(*args, **kwargs)

    def get_default(self, ctx: click.Context, *args: Value, **kwargs: Value) -> Value:
        if self.default_value_from_context and isinstance(ctx.obj, dict):
            self.default = ctx.obj[self.default_value_from_context]
        return super().get_default(ctx, *args, **kwargs)


def installed(name: str) -> click.Command:
    """The sub-command of that name, whoever brings it."""
    (point,) = metadata.entry_points(group=COMMANDS_GROUP, name=name)
    found = point.load()
    assert isinstance(found, click.Command), f"{point.value} is not a click command"
    return found
