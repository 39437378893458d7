"""Signals of a program's own, by Celery's path."""

from qbroker.utils.dispatch.signal import Signal

__all__ = ["Signal"]
