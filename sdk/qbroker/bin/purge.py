"""Celery's path to the command `purge`."""

from qbroker.app.commands import purge

__all__ = ["purge"]
