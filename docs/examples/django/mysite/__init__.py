"""The site. It imports the app, so that `shared_task` finds it wherever Django runs."""

from mysite.celery import app as celery_app

__all__ = ("celery_app",)
