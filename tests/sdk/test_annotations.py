"""task_annotations: attributes and wrappers from the configuration."""

from collections.abc import Callable, Mapping

import pytest

from qbroker.app.annotations import prepare
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp


def _add(x: int, y: int = 1) -> int:
    return x + y


class ByQueue:
    """As its users write one."""

    def annotate(self, task: Value) -> Mapping[str, Value] | None:
        return {"priority": 7} if task.name.startswith("mail.") else None

    def annotate_any(self) -> Mapping[str, Value] | None:
        return {"queue": "annotated"}


def test_tasks_take_attributes_by_their_name_and_those_of_any(make_app: MakeApp) -> None:
    app = make_app(task_annotations={"mail.send": {"priority": 3}, "*": {"queue": "all"}})
    send = app.task(name="mail.send")(_add)
    other = app.task(name="other")(_add)

    assert (send.priority, send.queue) == (3, "all")
    assert (other.priority, other.queue) == (None, "all")


@pytest.mark.parametrize(
    "entry", [ByQueue, ByQueue(), f"{__name__}:ByQueue"], ids=["class", "object", "path"]
)
def test_an_entry_may_be_an_object_a_class_or_its_path(
    make_app: MakeApp, entry: Value, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys  # noqa: PLC0415 - tests are imported by path, so this module has to be put there

    module = type(sys)(__name__)
    module.ByQueue = ByQueue  # type: ignore[attr-defined] # made here
    monkeypatch.setitem(sys.modules, __name__, module)
    app = make_app(CELERY_ANNOTATIONS=[entry, {"mail.send": {"track_started": True}}])

    send = app.task(name="mail.send")(_add)

    assert (send.priority, send.queue, send.track_started) == (7, "annotated", True)


def test_a_name_with_an_at_sign_wraps_a_method(make_app: MakeApp) -> None:
    seen: list[Value] = []

    def watched(run: Callable[..., Value]) -> Callable[..., Value]:
        def inner(*args: Value, **kwargs: Value) -> Value:
            seen.append(args)
            return run(*args, **kwargs)

        return inner

    app = make_app(task_annotations={"add": {"@run": watched, "@on_success": watched}})
    add = app.task(name="add")(_add)
    add.annotate()

    assert add.apply((2, 3)).get() == 5
    assert seen[0] == (2, 3)
    assert seen[1][1] == 5
    assert len(seen) == 2


def test_what_is_nothing_annotates_nothing() -> None:
    assert prepare(None) == ()
    assert prepare(({"a": {}},))[0].annotate_any() is None


def test_changing_the_setting_changes_what_is_bound_next(make_app: MakeApp) -> None:
    app = make_app(task_annotations={"*": {"queue": "one"}})
    first = app.task(name="first")(_add)
    assert first.queue == "one"

    app.conf.task_annotations = {"*": {"queue": "two"}}

    assert app.task(name="second")(_add).queue == "two"
    with pytest.raises(ImproperlyConfigured):
        app.conf.worker_concurrency = "many"
