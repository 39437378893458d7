"""Tasks that every app has, by Celery's names.

    celery.map  celery.starmap  celery.chunks      one message for many calls of a task
    celery.accumulate                              what stands for several results as one value
    celery.start                                   becomes a canvas: an errback that is more than one task
    celery.backend_cleanup                         nothing to do: the broker forgets results by itself
    celery.group  celery.chord  celery.chain       a canvas that somebody sends by its name
"""

from collections.abc import Mapping, Sequence

from qbroker.canvas import chunks, maybe_signature
from qbroker.serialization import Value

__all__ = ["add_tasks"]


def add_tasks(app: Value) -> None:
    """Add them to an app."""

    @app.task(name="celery.map", shared=False, lazy=False)
    def xmap(task: Value, it: Sequence[Value]) -> list[Value]:
        run = maybe_signature(task, app).type
        return [run(item) for item in it]

    @app.task(name="celery.starmap", shared=False, lazy=False)
    def xstarmap(task: Value, it: Sequence[Value]) -> list[Value]:
        run = maybe_signature(task, app).type
        return [run(*item) for item in it]

    @app.task(name="celery.chunks", shared=False, lazy=False)
    def send_chunks(task: Value, it: Sequence[Value], n: int) -> Value:
        return chunks.apply_chunks(task, it, n, app)

    @app.task(name="celery.accumulate", shared=False, lazy=False)
    def accumulate(*args: Value, **kwargs: Value) -> Value:
        index = kwargs.get("index")
        return args if index is None else args[index]

    @app.task(bind=True, name="celery.start", shared=False, lazy=False)
    def start(self: Value, failed_id: str, canvas: Mapping[str, Value]) -> Value:
        raise app.replaced(self.request, maybe_signature(canvas, app), (failed_id,))

    @app.task(name="celery.backend_cleanup", shared=False, lazy=False)
    def backend_cleanup() -> None: ...

    @app.task(name="celery.group", shared=False, lazy=False)
    def send_group(tasks: Sequence[Value], *args: Value, **kwargs: Value) -> Value:
        sig = {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": tasks}, "options": {}}
        return maybe_signature(sig, app)()

    @app.task(name="celery.chord", shared=False, lazy=False)
    def send_chord(header: Value, body: Value, *args: Value, **kwargs: Value) -> Value:
        sig = {
            "task": "celery.chord",
            "subtask_type": "chord",
            "kwargs": {"kwargs": {}, "header": header, "body": body},
            "options": {},
        }
        return maybe_signature(sig, app)()

    @app.task(name="celery.chain", shared=False, lazy=False)
    def send_chain(*args: Value, **kwargs: Value) -> None:
        raise NotImplementedError("chain is not a real task")
