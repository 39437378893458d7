"""task_routes: which options a call gets from its task's name."""

import re
import sys
import time
import types

import pytest

from qbroker.app.routes import MapRoute, Router
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp

TABLE = {
    "mail.send": "mail",
    "feed.*": {"queue": "feeds", "priority": 2},
    re.compile(r"(video|image)\..*"): {"queue": "media", "routing_key": "media.x"},
    "*": "rest",
}


@pytest.mark.parametrize("entries", [TABLE, list(TABLE.items())], ids=["mapping", "pairs"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mail.send", {"queue": "mail"}),
        ("feed.update", {"queue": "feeds", "priority": 2}),
        ("image.crop", {"queue": "media", "routing_key": "media.x"}),
        ("other", {"queue": "rest"}),
    ],
)
def test_names_globs_and_expressions_are_tried_in_this_order(
    entries: Value, name: str, options: dict[str, Value]
) -> None:
    assert Router(entries).lookup_route(name) == options
    assert MapRoute(entries)(name) == options


def by_function(
    name: str, args: Value, kwargs: Value, options: Value, task: Value = None, **more: Value
) -> Value:
    """A router as its users write one."""
    del args, options, task, more
    return {"queue": "function"} if kwargs and kwargs.get("vip") else None


class ByObject:
    """The same in the way of Celery before 4.0."""

    def route_for_task(self, task: str, args: Value = None, kwargs: Value = None) -> Value:
        return "object" if task.startswith("obj.") else None


def test_the_first_router_that_answers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("own_routers")
    module.ByObject = ByObject  # type: ignore[attr-defined] # made here
    monkeypatch.setitem(sys.modules, module.__name__, module)
    router = Router([by_function, "own_routers.ByObject", {"*": "rest"}])

    assert router.lookup_route("obj.x", (), {"vip": 1}) == {"queue": "function"}
    assert router.lookup_route("obj.x", (), {}) == {"queue": "object"}
    assert router.lookup_route("x", (), {}) == {"queue": "rest"}


def test_what_is_no_router_is_refused_with_what_may_be_one() -> None:
    with pytest.raises(ImproperlyConfigured, match="7 in task_routes is not a mapping"):
        Router([7])


def test_the_call_wins_over_the_task_and_the_task_over_the_route(make_app: MakeApp) -> None:
    app = make_app(task_routes={"*": {"queue": "route", "priority": 1, "expires": 60}})
    task = app.task(name="own", queue="task")(lambda: None)
    route = app.amqp.router.route

    assert route({}, "plain") == {"queue": "route", "priority": 1, "expires": 60}
    assert route({}, "own", task_type=task) == {"priority": 1, "expires": 60}
    assert route({"queue": "call", "expires": None}, "own", task_type=task) == {
        "queue": "call",
        "priority": 1,
        "expires": 60,
    }


def test_who_names_a_queue_leaves_nothing_of_the_routes_exchange_but_a_key_alone_does(
    make_app: MakeApp,
) -> None:
    app = make_app(task_routes={"*": {"exchange": "media", "routing_key": "a", "priority": 1}})
    route = app.amqp.router.route

    assert route({"queue": "mine"}, "x") == {"queue": "mine", "priority": 1}
    assert route({"exchange": ""}, "x") == {"exchange": "", "priority": 1}
    assert route({"routing_key": "b"}, "x") == {
        "exchange": "media",
        "routing_key": "b",
        "priority": 1,
    }


def test_a_hundred_routes_cost_microseconds() -> None:
    router = Router({f"package{number}.*.task*": f"q{number}" for number in range(100)})
    router.route({}, "package99.module.task1")

    started = time.perf_counter()
    for _ in range(1_000):
        router.route({}, "package99.module.task1")
    spent_s = time.perf_counter() - started

    # 5 microseconds each on an idle machine; this one may be busy.
    assert spent_s < 0.05


def test_changing_the_setting_changes_the_routes(make_app: MakeApp) -> None:
    app = make_app(task_routes={"*": "one"})
    assert app.amqp.router.lookup_route("x") == {"queue": "one"}

    app.conf.task_routes = {"*": "two"}

    assert app.amqp.router.lookup_route("x") == {"queue": "two"}
