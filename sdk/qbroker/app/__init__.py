"""The app and what belongs to it. Public: `App`, `Celery`, `shared_task`, and Celery's `app_or_default`."""

from qbroker import _state
from qbroker.app.base import App, Celery, shared_task
from qbroker.serialization import Value

__all__ = ["App", "Celery", "app_or_default", "shared_task"]


def app_or_default(app: App | None = None) -> Value:
    """The app that is given, else the current one."""
    return _state.get_current_app() if app is None else app
