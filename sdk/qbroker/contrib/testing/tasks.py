"""The task that a test's worker is asked for first."""

from qbroker.app import shared_task

__all__ = ["ping"]


@shared_task(name="celery.ping")
def ping() -> str:
    """Answer, which shows that the worker works."""
    return "pong"
