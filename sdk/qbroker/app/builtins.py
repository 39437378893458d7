"""Tasks that every app has, by Celery's names.

celery.map  celery.starmap  celery.chunks      one message for many calls of a task
celery.accumulate                              what stands for several results as one value
celery.start                                   becomes a canvas: an errback that is more than one task
celery.backend_cleanup                         nothing to do: the broker forgets results by itself
celery.group  celery.chord  celery.chain       a canvas that somebody sends by its name
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from qbroker.canvas import _chord, chunks, group, maybe_signature
from qbroker.serialization import Value

__all__ = ["add_tasks"]


class App(Protocol):
    """What the tasks ask of the app they are added to."""

    def task_from_fun(
        self, fun: Callable[..., Value], *, name: str, bind: bool = False
    ) -> object: ...

    def replaced(self, request: Value, sig: Value, args: Sequence[Value]) -> BaseException:
        """What a task raises to have a canvas take its place."""


def add_tasks(app: App) -> None:
    """Add them to an app."""

    def xmap(task: Value, it: Sequence[Value]) -> list[Value]:
        run = maybe_signature(task, app).type
        return [run(item) for item in it]

    def xstarmap(task: Value, it: Sequence[Value]) -> list[Value]:
        run = maybe_signature(task, app).type
        return [run(*item) for item in it]

    def send_chunks(task: Value, it: Sequence[Value], n: int) -> Value:
        return chunks.apply_chunks(task, it, n, app)

    def accumulate(*args: Value, **kwargs: Value) -> Value:
        index = kwargs.get("index")
        return args if index is None else args[index]

    def start(self: Value, failed_id: str, canvas: Mapping[str, Value]) -> Value:
        raise app.replaced(self.request, maybe_signature(canvas, app), (failed_id,))

    def backend_cleanup() -> None: ...

    def send_group(tasks: Sequence[Value], *_: Value, **__: Value) -> Value:
        return group(tasks, app=app)()

    def send_chord(header: Value, body: Value, *_: Value, **__: Value) -> Value:
        return _chord(header, body, app=app)()

    def send_chain(*_: Value, **__: Value) -> None:
        raise NotImplementedError("chain is not a real task")

    functions: dict[str, Callable[..., Value]] = {
        "celery.map": xmap,
        "celery.starmap": xstarmap,
        "celery.chunks": send_chunks,
        "celery.accumulate": accumulate,
        "celery.backend_cleanup": backend_cleanup,
        "celery.group": send_group,
        "celery.chord": send_chord,
        "celery.chain": send_chain,
    }
    for name, fun in functions.items():
        app.task_from_fun(fun, name=name)
    app.task_from_fun(start, name="celery.start", bind=True)
