"""Celery's path to the command `call`."""

from qbroker.app.commands import call

__all__ = ["call"]
