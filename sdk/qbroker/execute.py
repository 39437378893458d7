"""Calls through the current app, by the path of Celery's version 3."""

from collections.abc import Mapping, Sequence

from qbroker import _state
from qbroker.serialization import Value

__all__ = ["apply_async", "delay_task", "send_task"]


def send_task(name: str, *args: Value, **options: Value) -> Value:
    """Call a task by its name: `app.send_task`."""
    return _state.get_current_app().send_task(name, *args, **options)


def apply_async(
    task: Value,
    args: Sequence[Value] | None = None,
    kwargs: Mapping[str, Value] | None = None,
    **options: Value,
) -> Value:
    """Call a task with options."""
    return task.apply_async(args, kwargs, **options)


def delay_task(task_name: str, *args: Value, **kwargs: Value) -> Value:
    """Call a task by its name with these arguments."""
    return send_task(task_name, args, kwargs)
