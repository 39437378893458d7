"""The app and what belongs to it. Public: `App`, `Celery`, `shared_task`, and Celery's `app_or_default` and `bugreport`."""

from qbroker import _state
from qbroker.app.base import App, Celery, shared_task
from qbroker.serialization import Value

__all__ = ["App", "Celery", "app_or_default", "bugreport", "shared_task"]


def app_or_default(app: App | None = None) -> Value:
    """The app that is given, else the current one."""
    return _state.get_current_app() if app is None else app


def bugreport(app: App | None = None) -> str:
    """What to add to a report of a fault of this app, or of the current one; secrets are masked."""
    return str(app_or_default(app).bugreport())
