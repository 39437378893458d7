"""Schedules, by the path of Celery's version 2."""

from qbroker.schedules import crontab, maybe_schedule, schedule

__all__ = ["crontab", "maybe_schedule", "schedule"]
