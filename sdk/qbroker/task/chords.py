"""Chords, by the path of Celery's version 2."""

from qbroker.canvas import chord

__all__ = ["chord"]
