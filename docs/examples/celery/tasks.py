"""First steps: an app and a task in one module, which is all a worker needs."""

from qbroker import Celery

app = Celery("tasks", backend="rpc://", task_default_queue="first")


@app.task
def add(x: int, y: int) -> int:
    """Add two numbers."""
    return x + y
