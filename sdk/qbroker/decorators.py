"""The decorators of tasks, by the path of Celery's version 2."""

from qbroker.task import periodic_task, task

__all__ = ["periodic_task", "task"]
