"""Importing the modules of tasks, by Celery's names. There is one way to load settings: `app.config_from_object` and its kin."""

from qbroker.loaders.base import autodiscover_tasks, find_related_module

__all__ = ["autodiscover_tasks", "find_related_module"]
