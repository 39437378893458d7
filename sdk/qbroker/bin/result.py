"""Celery's path to the command `result`."""

from qbroker.app.commands import result

__all__ = ["result"]
