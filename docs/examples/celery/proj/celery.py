"""Where the project's app is made; `qbroker worker -A proj` finds it here."""

from qbroker import Celery

app = Celery(
    "proj",
    backend="rpc://",
    include=["proj.tasks", "proj.periodic", "qbroker.task.http"],
)
app.config_from_object("proj.celeryconfig")

if __name__ == "__main__":
    app.start()
