"""The classes of tasks, by the path of Celery's versions 2 and 3."""

from qbroker.task import BaseTask, PeriodicTask, Task

__all__ = ["BaseTask", "PeriodicTask", "Task"]
