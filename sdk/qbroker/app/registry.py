"""Celery's path to the registry of an app's tasks."""

from qbroker.app.base import TaskRegistry

__all__ = ["TaskRegistry"]
