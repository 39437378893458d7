"""Celery's path to what tells of an app and finds it."""

from qbroker.app.base import App
from qbroker.app.config import Settings
from qbroker.app.loading import find_app

__all__ = ["Settings", "appstr", "bugreport", "find_app"]


def appstr(app: App) -> str:
    """The app in a word or two: `proj:0x7f…`."""
    return f"{app.main or '__main__'}:{id(app):#x}"


def bugreport(app: App) -> str:
    """What to add to a report of a fault; secrets are masked."""
    return app.bugreport()
