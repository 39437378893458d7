"""Celery's path to the commands `control`, `inspect`, `status`."""

from qbroker.app.commands import control, inspect, status

__all__ = ["control", "inspect", "status"]
