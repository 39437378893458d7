"""Celery's place for `Task` and `Context`."""

from qbroker.request import Context
from qbroker.task import Task

__all__ = ["Context", "Task"]
