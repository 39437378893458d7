"""Celery's path to the command `list`."""

from qbroker.app.commands import list_

__all__ = ["list_"]
