"""Celery's path to the command `events`."""

from qbroker.app.commands import events

__all__ = ["events"]
