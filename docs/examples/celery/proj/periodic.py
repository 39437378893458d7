"""Periodic tasks: declared by the app, fired by the broker."""

from proj.celery import app
from qbroker import Celery
from qbroker.schedules import crontab


@app.on_after_finalize.connect
def setup_periodic_tasks(sender: Celery, **kwargs: object) -> None:
    """Say hello five times a second, and something else on Mondays."""
    sender.add_periodic_task(0.2, say.s("hello"), name="say hello")
    sender.add_periodic_task(0.2, say.s("world"), expires=10)
    sender.add_periodic_task(crontab(hour=7, minute=30, day_of_week=1), say.s("Happy Mondays!"))


@app.task
def say(word: str) -> None:
    """Print a word, which the worker logs."""
    print(f"periodic {word}")


app.conf.beat_schedule = {
    "add at sunrise": {
        "task": "proj.tasks.add",
        "schedule": crontab(minute=0, hour=6),
        "args": (16, 16),
    },
}
