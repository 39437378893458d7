"""app.conf: where settings come from, which source wins, and what is told of those that are wrong."""

import logging
import os
import sys
import types
from pathlib import Path

import pytest

from qbroker import App, _state
from qbroker.app.config import Settings
from qbroker.app.defaults import IGNORED, SETTINGS, find
from qbroker.exceptions import ConfigNotFound, ImproperlyConfigured
from qbroker.serialization import Value
from tests.sdk.conftest import MakeApp


class Old:
    """Settings by their old names."""

    CELERY_ACKS_LATE = True
    CELERY_TASK_RESULT_EXPIRES = 60
    CELERYD_CONCURRENCY = 3
    BROKER_URL = "qbroker://old:1"


class New:
    """The same by their new names."""

    task_acks_late = True
    result_expires = 60
    worker_concurrency = 3
    broker_url = "qbroker://old:1"


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    made = types.ModuleType("own_celeryconfig")
    made.task_default_queue = "mail"  # type: ignore[attr-defined] # made here
    made.nested = types.SimpleNamespace(task_default_queue="nested")  # type: ignore[attr-defined] # made here
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


@pytest.mark.parametrize(
    "source",
    [Old, Old(), New, New(), vars(New)],
    ids=["old class", "old object", "new class", "new object", "mapping"],
)
def test_settings_come_from_classes_objects_and_mappings_by_either_spelling(
    make_app: MakeApp, source: Value
) -> None:
    app = make_app()

    app.config_from_object(source)

    conf = app.conf
    assert conf.task_acks_late is conf.CELERY_ACKS_LATE is True
    assert conf.result_expires == conf.CELERY_TASK_RESULT_EXPIRES == 60.0
    assert conf.worker_concurrency == conf["CELERYD_CONCURRENCY"] == 3
    assert conf.broker_url == conf.BROKER_URL == "qbroker://old:1"


@pytest.mark.parametrize(
    ("name", "queue"),
    [
        ("own_celeryconfig", "mail"),
        ("own_celeryconfig:nested", "nested"),
        ("own_celeryconfig.nested", "nested"),
    ],
)
def test_settings_come_from_a_module_or_what_is_in_it(
    make_app: MakeApp, module: types.ModuleType, name: str, queue: str
) -> None:
    app = make_app()

    app.config_from_object(name)

    assert not app.configured
    assert app.conf.task_default_queue == queue
    assert app.configured


def test_a_namespace_takes_names_that_begin_with_it_and_no_others(make_app: MakeApp) -> None:
    app = make_app()

    app.config_from_object(
        {"CELERY_TASK_DEFAULT_QUEUE": "mail", "celery_worker_concurrency": 2, "DEBUG": True},
        namespace="CELERY",
    )

    assert (app.conf.task_default_queue, app.conf.worker_concurrency) == ("mail", 2)
    assert "DEBUG" not in app.conf


def test_a_module_that_is_missing_is_an_error_when_it_is_needed_unless_silent(
    make_app: MakeApp,
) -> None:
    app, silent = make_app(), make_app()

    app.config_from_object("no_such_module")
    silent.config_from_object("no_such_module", silent=True)

    with pytest.raises(ConfigNotFound, match="no_such_module") as caught:
        app.conf.finalize()
    assert isinstance(caught.value, ImportError)
    assert silent.conf.task_default_queue == "celery"
    assert silent.config_from_object("no_such_module", silent=True, force=True) is None


def test_a_module_that_misses_another_one_is_not_called_missing(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_config.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    app = make_app()
    app.config_from_object("broken_config", silent=True)

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        app.conf.finalize()


def test_the_environment_may_name_the_module(
    make_app: MakeApp, module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_CONFIG", module.__name__)
    app = make_app()

    found = app.config_from_envvar("OWN_CONFIG", force=True)

    assert found is app.conf
    assert app.conf.task_default_queue == "mail"
    assert app.config_from_envvar("NOT_SET", silent=True) is False
    with pytest.raises(ImproperlyConfigured, match="'NOT_SET' is not set"):
        app.config_from_envvar("NOT_SET")


def test_the_app_nobody_made_is_configured_by_celeryconfig_or_what_the_environment_names(
    module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_CONFIG_MODULE", module.__name__)

    with _state._defaults["make"]() as app:
        assert app.conf.task_default_queue == "mail"


def test_settings_come_from_arguments(make_app: MakeApp) -> None:
    app = make_app()

    app.config_from_cmdline(
        [
            "task_always_eager=no",
            "worker.prefetch_multiplier=368",
            ".concurrency=2",
            ".own=(int)300",
            "own.mapping=(dict){'a': 1}".replace("'", '"'),
        ],
        namespace="worker",
    )

    conf = app.conf
    assert (conf.task_always_eager, conf.worker_prefetch_multiplier) == (False, 368)
    assert (conf.worker_concurrency, conf.worker_own, conf.own_mapping) == (2, 300, {"a": 1})


def test_the_constructor_wins_over_a_source_and_a_source_over_added_defaults(
    make_app: MakeApp,
) -> None:
    app = make_app(task_default_queue="constructor")

    app.conf.worker_concurrency = 5
    app.add_defaults({"task_default_queue": "default", "worker_concurrency": 1, "task_time": 1})
    app.add_defaults(lambda: {"worker_prefetch_multiplier": 7, "task_default_priority": 4})
    app.config_from_object(
        {"task_default_queue": "source", "worker_concurrency": 2, "task_default_priority": 8}
    )

    conf = app.conf
    assert (conf.task_default_queue, conf.worker_concurrency) == ("constructor", 5)
    assert (conf.task_default_priority, conf.worker_prefetch_multiplier) == (8, 7)
    assert conf.task_time == 1
    app.add_defaults({"worker_prefetch_multiplier": 9, "task_default_priority": 1})
    assert (conf.task_default_priority, conf.worker_prefetch_multiplier) == (8, 9)


def test_a_source_that_comes_later_changes_what_is_configured_but_not_what_the_constructor_said(
    make_app: MakeApp,
) -> None:
    app = make_app(task_default_queue="constructor")
    app.conf.worker_concurrency = 5
    app.conf.finalize()

    app.config_from_object({"task_default_queue": "source", "worker_concurrency": 2})

    assert (app.conf.task_default_queue, app.conf.worker_concurrency) == ("constructor", 2)


def test_setting_does_not_configure_and_reading_does_once(make_app: MakeApp) -> None:
    app = make_app()
    seen: list[Value] = []

    def before(**_: Value) -> None:
        seen.append("before")

    def after(source: Settings, **_: Value) -> None:
        seen.append(source.task_default_queue)

    app.on_configure.connect(before)
    app.on_after_configure.connect(after)
    app.conf.update(task_default_queue="mail")
    app.conf.setdefault("task_default_queue", "other")
    assert seen == []
    assert app.conf.worker_concurrency is None
    assert app.conf.task_default_queue == "mail"

    assert seen == ["before", "mail"]


@pytest.mark.parametrize(
    ("source", "rename"),
    [
        ({"task_acks_late": 1, "worker_pool": "solo", "CELERY_DEFAULT_QUEUE": "x"}, ("CELERY_DEFAULT_QUEUE", "task_default_queue")),
        ({"CELERY_ACKS_LATE": 1, "CELERYD_POOL": "solo", "task_default_queue": "x"}, ("task_default_queue", "CELERY_DEFAULT_QUEUE")),
    ],
)  # fmt: skip
def test_mixed_spellings_are_refused_with_what_to_rename(
    make_app: MakeApp, source: dict[str, Value], rename: tuple[str, str]
) -> None:
    app = make_app(config_source=source)

    with pytest.raises(ImproperlyConfigured, match="old and new names") as caught:
        app.conf.finalize()

    odd, better = rename
    assert [line.split() for line in str(caught.value).splitlines() if "->" in line] == [
        [odd, "->", better]
    ]


def test_the_same_setting_by_both_spellings_is_not_mixed(make_app: MakeApp) -> None:
    app = make_app(
        config_source={"task_acks_late": 1, "CELERY_ACKS_LATE": 1, "CELERYD_POOL": "x", "worker_pool": "solo"}
    )  # fmt: skip

    assert app.conf.task_acks_late


def test_settings_of_celery_without_effect_are_noted_for_the_worker_with_the_reason(
    make_app: MakeApp, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(config_source={"broker_pool_limit": 3, "redis_db": 1, "task_acks_late": True})

    with caplog.at_level(logging.WARNING):
        app.conf.finalize()
        app.finalize()

    (note,) = app.conf.notes
    assert "broker_pool_limit (" in note
    assert "redis_db (results are in the broker" in note
    assert caplog.records == []
    assert app.conf.broker_pool_limit == app.conf.BROKER_POOL_LIMIT == 3


@pytest.mark.parametrize(
    ("source", "namespace", "told"),
    [
        ({"task_serialiser": "json"}, None, ["'task_serialiser'; did you mean 'task_serializer'"]),
        ({"CELERYD_CONCURENCY": 1}, None, ["'CELERYD_CONCURENCY'; did you mean 'CELERYD_CONCURRENCY'"]),
        ({"CELERY_TASK_DEFAULT_QEUE": "x"}, "CELERY", ["'task_default_qeue'; did you mean 'task_default_queue'"]),
        ({"broker": "qbroker://h"}, None, ["'broker'; did you mean 'broker_url'?"]),
        ({"BACKEND": "rpc://"}, None, ["'BACKEND'; did you mean 'CELERY_RESULT_BACKEND'?"]),
        ({"tasks": ["proj.tasks"]}, None, ["'tasks'; did you mean 'imports'?"]),
        ({"CELERY_BROKER": "x"}, None, ["'CELERY_BROKER'; did you mean 'BROKER_URL'?"]),
        ({"CELERY_BROKER": "x"}, "CELERY", ["'broker'; did you mean 'broker_url'?"]),
        ({"celery_task_acks_late": 1}, None, ["'celery_task_acks_late'; did you mean 'task_acks_late', or the argument namespace"]),
        ({"include": ["a"], "timezone": "UTC", "CELERY_INCLUDE": ["a"], "CELERY_TIMEZONE": "UTC"}, None, []),
        ({"TIME_ZONE": "UTC", "os_path": 1, "task_of_my_own_making": 1}, None, []),
    ],
)  # fmt: skip
def test_a_typing_error_is_told_with_the_setting_that_was_meant(
    make_app: MakeApp,
    caplog: pytest.LogCaptureFixture,
    source: dict[str, Value],
    namespace: str | None,
    told: list[str],
) -> None:
    app = make_app()
    app.config_from_object(source, namespace=namespace)

    with caplog.at_level(logging.WARNING):
        app.conf.finalize()

    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == len(told)
    assert all(part in message for part, message in zip(told, messages, strict=True))


def test_an_unknown_setting_that_is_read_is_an_error_with_a_suggestion(make_app: MakeApp) -> None:
    conf = make_app().conf

    with pytest.raises(AttributeError, match="did you mean 'worker_pool'"):
        conf.worker_pol  # noqa: B018 - the look is the use
    with pytest.raises(KeyError):
        conf["worker_pol"]
    assert conf.get("worker_pol") is None


def test_secrets_are_masked_wherever_settings_are_shown(make_app: MakeApp) -> None:
    app = make_app(
        broker="qbroker://me:hunter2@localhost:1",
        own_url="redis://:hunter2,or@hunter2@h:1/0;redis://:hunter2@h:2",
        aws_api_token="hunter2",  # noqa: S106 - the secret that must not show
        redis_password="hunter2",  # noqa: S106 - the same
        own={"secret_key": "hunter2", "plain": 1},
        task_default_queue="mail",
    )

    shown = app.conf.table()

    assert shown["broker_url"] == "qbroker://me:**@localhost:1"
    assert shown["own_url"] == "redis://:**@h:1/0;redis://:**@h:2"
    assert shown["own"] == {"secret_key": "********", "plain": 1}
    assert "hunter2" not in app.conf.humanize() + app.bugreport() + repr(app.conf)
    assert "task_default_queue: 'mail'" in app.conf.humanize().splitlines()
    assert app.conf.table(censored=False)["redis_password"] == "hunter2"  # noqa: S105 - the same
    assert "worker_pool: 'prefork'" in app.conf.humanize(with_defaults=True)
    assert "worker_pool" not in app.conf.humanize()


def test_options_are_found_by_the_end_of_their_name(make_app: MakeApp) -> None:
    conf = make_app(CELERY_ACKS_LATE=True).conf

    assert conf.find_option("concurrency")[:2] == ("worker", "concurrency")
    assert conf.find_option("expires", "result")[:2] == ("result", "expires")
    assert conf.find_option("worker_pool")[:2] == (None, "worker_pool")
    assert conf.get_by_parts("worker", "pool") == conf.find_value_for_key("pool") == "prefork"
    with pytest.raises(KeyError):
        conf.find_option("no_such_option")
    assert conf.value_set_for("task_acks_late")
    assert conf.value_set_for("CELERY_ACKS_LATE")
    assert not conf.value_set_for("worker_pool")
    assert conf.without_defaults() == {"task_acks_late": True}


def test_what_is_deleted_or_none_is_the_default_again(make_app: MakeApp) -> None:
    conf = make_app(worker_prefetch_multiplier=9, own=1).conf

    del conf.worker_prefetch_multiplier
    del conf["own"]

    assert conf.worker_prefetch_multiplier == 4
    assert "own" not in conf
    with pytest.raises(KeyError):
        del conf["own"]


def test_a_default_that_is_changed_in_place_stays_the_apps_own(make_app: MakeApp) -> None:
    first, second = make_app(), make_app()

    first.conf.broker_transport_options["x"] = 1

    assert second.conf.broker_transport_options == {}


def test_either_is_the_first_that_is_given_or_else_the_setting(make_app: MakeApp) -> None:
    app = make_app(task_default_queue="mail")

    assert app.either("task_default_queue", None, "given") == "given"
    assert app.either("task_default_queue", None) == "mail"


def test_names_follow_each_other_in_both_directions() -> None:
    for setting in (*SETTINGS.values(), *IGNORED.values()):
        for name in (setting.name, setting.old_name, *setting.old_names, setting.name.upper()):
            assert find(name) is setting, name
    assert find("CELERY_RESULT_BACKEND") is SETTINGS["result_backend"]
    assert find("CELERY_TASK_TRACK_STARTED") is find("CELERY_TRACK_STARTED")


def test_a_process_that_was_forked_is_told_to_the_apps(make_app: MakeApp) -> None:
    app: App = make_app()
    readable, writable = os.pipe()

    def tell(sender: App, **_: Value) -> None:
        os.write(writable, b"told" if sender is app else b"wrong")

    app.on_after_fork.connect(tell)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    os.close(writable)

    assert os.read(readable, 100) == b"told"
    os.close(readable)


def test_without_utc_times_are_the_machines_own(make_app: MakeApp) -> None:
    assert make_app().uses_utc_timezone()
    own = make_app(enable_utc=False)
    assert own.now().utcoffset() == own.now().astimezone().utcoffset()
    assert not make_app(timezone="Europe/Berlin").uses_utc_timezone()


@pytest.mark.parametrize(
    "url",
    [
        "redis://h",
        "redis",
        "amqp://",
        "db+sqlite:///x.db",
        "file:///x",
        "django-db",
        "qbroker://h:x",
        "elasticsearch://h:9200",
        5,
        ["qbroker://"],
    ],
)
def test_a_result_backend_that_is_not_the_broker_is_refused_at_construction(url: Value) -> None:
    with pytest.raises(ImproperlyConfigured, match="the setting result_backend") as refused:
        App("proj", backend=url, set_as_current=False)
    with pytest.raises(ImproperlyConfigured):
        App("proj", CELERY_RESULT_BACKEND=url, set_as_current=False)

    assert "broker's URL" not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "disabled",
        "disabled://",
        "rpc",
        "rpc://",
        "qbroker",
        "qbroker://",
        "qbroker://h:1",
        "qbroker://[::1]:1",
        "h:1",
        "memory",
        "memory://",
        "cache+memory://",
    ],
)
def test_a_result_backend_may_be_the_broker_or_none(url: str) -> None:
    assert App("proj", backend=url, set_as_current=False).conf.result_backend == url


def test_an_app_without_a_configuration_takes_what_the_environment_names(
    make_app: MakeApp, module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_CONFIG_MODULE", module.__name__)

    assert make_app().conf.task_default_queue == "mail"
    assert make_app(config_source={}).conf.task_default_queue == "celery"
