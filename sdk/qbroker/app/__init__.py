"""The app and what belongs to it. Public: `App`, `Celery`, `shared_task`."""

from qbroker.app.base import App, Celery, shared_task

__all__ = ["App", "Celery", "shared_task"]
