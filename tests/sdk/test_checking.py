"""Settings that cannot be used stop a worker or beat with a sentence that names them."""

import datetime as dt
import re
from collections.abc import Callable
from zoneinfo import ZoneInfo

import pytest

from qbroker import App
from qbroker.app.checking import check
from qbroker.exceptions import ImproperlyConfigured
from qbroker.messaging import Queue
from qbroker.serialization import Value
from qbroker_worker.loading import facts_of


def app_with(name: str, value: Value) -> App:
    app = App("proj", set_as_current=False)
    app.conf[name] = value
    return app


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timezone", "Europe/Berln"),
        ("timezone", ""),
        ("timezone", "../../etc/passwd"),
        ("timezone", 5),
        ("task_routes", 5),
        ("task_routes", {"proj.add": 5}),
        ("task_routes", "no.such.router"),
        ("task_queues", 5),
        ("task_queues", "mail"),
        ("task_queues", [5]),
        ("task_queues", {"mail": 5}),
        ("task_annotations", 5),
        ("task_annotations", "no.such.thing"),
        ("task_serializer", "jsn"),
        ("result_serializer", "jsn"),
        ("accept_content", ["jsn"]),
        ("accept_content", [5]),
        ("result_accept_content", ["jsn"]),
        ("task_compression", "zsdt"),
        ("result_compression", "zsdt"),
        ("task_default_priority", 10),
        ("task_default_priority", -1),
        ("task_default_exchange_type", "topc"),
        ("beat_schedule", 5),
        ("beat_schedule", {"tidy": 5}),
        ("imports", [5]),
        ("include", [5]),
        ("worker_concurrency", -1),
        ("worker_prefetch_multiplier", -1),
        ("worker_max_tasks_per_child", -1),
        ("worker_pool_start_method", "thread"),
        ("worker_http_listen", "7460"),
        ("worker_log_color", "blue"),
        ("worker_log_format", "%(levelname"),
        ("worker_task_log_format", "%(levelname"),
        ("worker_redirect_stdouts_level", "LOUD"),
        ("worker_soft_shutdown_timeout", -1),
        ("task_time_limit", -1),
        ("task_soft_time_limit", float("nan")),
        ("result_expires", -1),
        ("broker_connection_timeout", -1),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_by_its_name(name: str, value: Value) -> None:
    app = app_with(name, value)

    with pytest.raises(ImproperlyConfigured, match=re.escape(f"the setting {name} must be ")):
        facts_of(app)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("timezone", "Europe/Berlin"),
        ("timezone", dt.UTC),
        ("timezone", ZoneInfo("UTC")),
        ("task_routes", {"a": "q", "b.*": {"queue": "q"}, "c": Queue("q")}),
        ("task_routes", [("a", "q"), (re.compile("b"), {"priority": 3})]),
        ("task_routes", ({"a": "q"}, lambda *_args, **_kwargs: None)),
        ("task_queues", [Queue("a"), "b"]),
        ("task_queues", {"a": {"exchange": "a"}}),
        ("task_annotations", {"*": {"priority": 3}}),
        ("accept_content", ["json", "application/x-own"]),
        ("task_compression", "zstd"),
        ("task_compression", "application/zstd"),
        ("beat_schedule", {"tidy": {"task": "proj.tidy", "schedule": 60.0}}),
        ("compression_level", -1),
        ("worker_concurrency", 0),
        ("worker_http_listen", "[::1]:7460"),
        ("worker_log_color", None),
        ("worker_redirect_stdouts_level", "info"),
        ("result_expires", dt.timedelta(days=1)),
    ],
)
def test_a_setting_that_can_be_used_is_taken(name: str, value: Value) -> None:
    check(app_with(name, value))


def test_every_setting_that_cannot_be_used_is_named_at_once() -> None:
    app = App("proj", timezone="Europe/Berln", task_routes=5, set_as_current=False)

    with pytest.raises(ImproperlyConfigured, match=r"task_routes .*; the setting timezone "):
        check(app)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("worker_concurrency", float("inf")),
        ("worker_concurrency", "two"),
        ("task_acks_late", "perhaps"),
        ("task_time_limit", "long"),
        ("task_default_queue", 5),
        ("imports", 5),
        ("security_encryption_keys", 5),
    ],
)
def test_a_value_of_another_type_is_refused_when_it_is_set(name: str, value: Value) -> None:
    with pytest.raises(ImproperlyConfigured, match=f"the setting {name} must be "):
        app_with(name, value)


def test_a_call_by_a_time_zone_that_does_not_exist_names_the_setting() -> None:
    app = App("proj", timezone="Europe/Berln", set_as_current=False)

    with pytest.raises(ImproperlyConfigured, match="the setting timezone must be"):
        app.now()


def crossed_by_settings(app: App) -> None:
    app.conf.update(task_soft_time_limit=5, task_time_limit=1)


def crossed_by_attributes(app: App) -> None:
    app.task(shared=False, name="proj.slow", soft_time_limit=5, time_limit=1)(lambda: None)


def crossed_by_annotations(app: App) -> None:
    app.conf.task_annotations = {"proj.slow": {"soft_time_limit": 5, "time_limit": 1}}
    app.task(shared=False, name="proj.slow")(lambda: None)


def crossed_by_a_setting_and_an_attribute(app: App) -> None:
    app.conf.task_time_limit = 1
    app.task(shared=False, name="proj.slow", soft_time_limit=5)(lambda: None)


@pytest.mark.parametrize(
    ("cross", "place"),
    [
        (crossed_by_settings, "task_soft_time_limit"),
        (crossed_by_attributes, "'proj.slow'"),
        (crossed_by_annotations, "'proj.slow'"),
        (crossed_by_a_setting_and_an_attribute, "'proj.slow'"),
    ],
)
def test_a_soft_time_limit_above_the_hard_one_is_refused(
    cross: Callable[[App], None], place: str
) -> None:
    app = App("proj", set_as_current=False)
    cross(app)

    with pytest.raises(ImproperlyConfigured) as caught:
        check(app)

    assert place in str(caught.value)
    assert "time_limit" in str(caught.value)
