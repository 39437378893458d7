"""Celery's path to the command `worker`, which the worker's package brings."""

from qbroker.bin.base import installed

__all__ = ["worker"]

worker = installed("worker")
