"""Celery's path to the command itself: `celery` and `main`."""

from qbroker.cli.main import main, qbroker as celery

__all__ = ["celery", "main"]
