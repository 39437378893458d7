"""Celery's path to the class of what `task_received` and `task_revoked` are given."""

from qbroker.request import Context

__all__ = ["Request"]

Request = Context
