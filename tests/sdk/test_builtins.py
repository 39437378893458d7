"""The tasks that every app has."""

import pytest

from qbroker import App
from qbroker.serialization import Value


@pytest.fixture
def app() -> App:
    """An app with one task of its own, all of them run where they are called."""
    made = App("proj", set_as_current=False, task_always_eager=True)

    @made.task(name="proj.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    return made


def run(app: App, name: str, *args: Value, **kwargs: Value) -> Value:
    """What a task returns."""
    return app.tasks[f"celery.{name}"].apply(args, kwargs).get()


def test_every_app_has_them(app: App) -> None:
    names = {
        "accumulate",
        "backend_cleanup",
        "chain",
        "chord",
        "chunks",
        "group",
        "map",
        "start",
        "starmap",
    }

    # A test kit's shared task may be there as well.
    assert {f"celery.{name}" for name in names} <= app.tasks.keys()


def test_one_message_for_many_calls(app: App) -> None:
    add = {"task": "proj.add", "args": [], "kwargs": {"y": 1}, "options": {}}

    assert run(app, "map", {**add, "kwargs": {}} | {"task": "celery.accumulate"}, [1, 2]) == [
        (1,),
        (2,),
    ]
    assert run(app, "starmap", add, [[1, 2], [3, 4]]) == [3, 7]
    assert run(app, "chunks", add, [[1, 2], [3, 4]], 1).get() == [[3], [7]]


def test_several_results_as_one_value(app: App) -> None:
    assert run(app, "accumulate", 1, 2) == (1, 2)
    assert run(app, "accumulate", [1, 2], index=0) == [1, 2]


def test_a_canvas_by_its_name(app: App) -> None:
    add = app.tasks["proj.add"]

    assert run(app, "group", [dict(add.s(1, 1)), dict(add.s(2, 2))]).get() == [2, 4]
    assert run(app, "chord", [dict(add.s(1, 1))], app.signature("celery.accumulate")).get() == (
        [2],
    )
    with pytest.raises(NotImplementedError, match="not a real task"):
        run(app, "chain")


def test_cleaning_up_is_the_brokers_business(app: App) -> None:
    assert run(app, "backend_cleanup") is None
