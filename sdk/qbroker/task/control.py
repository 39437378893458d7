"""`app.control` of the current app as functions, by the path of Celery's version 3."""

from qbroker import _state
from qbroker.serialization import Value

__all__ = ["broadcast", "discard_all", "inspect", "ping", "rate_limit", "revoke", "time_limit"]


def broadcast(command: str, *args: Value, **options: Value) -> Value:
    """Send a remote command: `app.control.broadcast`."""
    return _state.get_current_app().control.broadcast(command, *args, **options)


def rate_limit(task_name: str, rate_limit: Value, **options: Value) -> Value:
    """Set a task's rate limit: `app.control.rate_limit`."""
    return _state.get_current_app().control.rate_limit(task_name, rate_limit, **options)


def time_limit(task_name: str, *args: Value, **options: Value) -> Value:
    """Set a task's time limits: `app.control.time_limit`."""
    return _state.get_current_app().control.time_limit(task_name, *args, **options)


def ping(*args: Value, **options: Value) -> Value:
    """Ask who is there: `app.control.ping`."""
    return _state.get_current_app().control.ping(*args, **options)


def revoke(task_id: Value, *args: Value, **options: Value) -> Value:
    """Take calls back: `app.control.revoke`."""
    return _state.get_current_app().control.revoke(task_id, *args, **options)


def discard_all(*args: Value, **options: Value) -> Value:
    """Empty the queues: `app.control.purge`."""
    return _state.get_current_app().control.purge(*args, **options)


def inspect(*args: Value, **options: Value) -> Value:
    """Ask the workers: `app.control.inspect`."""
    return _state.get_current_app().control.inspect(*args, **options)
