"""Celery's path to the command `shell`."""

from qbroker.app.commands import shell

__all__ = ["shell"]
