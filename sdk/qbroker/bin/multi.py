"""Celery's path to the command `multi`, which the worker's package brings."""

from qbroker.bin.base import installed

__all__ = ["multi"]

multi = installed("multi")
