"""Celery's place for where results are kept; here that is the broker, so there is no other to choose."""

from qbroker.result import Backend, DisabledBackend

__all__ = ["Backend", "BaseBackend", "DisabledBackend"]

BaseBackend = Backend
