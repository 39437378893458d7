"""Apps in Django projects, here with a project in this process. A site with a worker is in tests/docs/test_examples.py."""

import os
from collections.abc import Iterator
from types import SimpleNamespace

import django
import pytest
from django.conf import settings
from django.db import connection, connections, transaction

from qbroker import App, Task, _state
from qbroker.contrib.django.task import DjangoTask
from qbroker.exceptions import FixupWarning
from qbroker.fixups.django import DjangoFixup, fixup
from qbroker.serialization import Value


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Django's settings; there can be one of them in a process."""
    name = str(tmp_path_factory.mktemp("django") / "db.sqlite3")
    settings.configure(
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": name}},
        INSTALLED_APPS=["django.contrib.contenttypes"],
        LOGGING_CONFIG=None,
        USE_TZ=True,
        CELERY_TASK_DEFAULT_QUEUE="of-django",
        CELERY_TASK_ALWAYS_EAGER=True,
        QUEUE="not ours",
    )
    django.setup()


@pytest.fixture
def app(project: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "named.but.not.read")
    with _state.kept(), App("site") as app:
        yield app
    connections.close_all()


def in_worker(app: App, *, is_eager: bool = False) -> Value:
    """A task of the app that is running."""
    return SimpleNamespace(app=app, request=SimpleNamespace(is_eager=is_eager))


def fixup_of(app: App) -> DjangoFixup:
    (found,) = app.fixups
    assert isinstance(found, DjangoFixup)
    return found


def test_without_a_module_of_settings_an_app_is_as_it_was() -> None:
    assert "DJANGO_SETTINGS_MODULE" not in os.environ  # noqa: TID251
    app = App("plain", set_as_current=False)

    assert app.fixups == []
    assert app.Task is not None
    assert not issubclass(app.Task, DjangoTask)


def test_without_django_the_app_does_without_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SITE_SETTINGS", "site.settings")

    with pytest.warns(FixupWarning, match="no_such_django is not installed"):
        assert fixup(App("plain", set_as_current=False), "SITE_SETTINGS", "no_such_django") is None


def test_settings_are_those_of_the_namespace(app: App) -> None:
    app.config_from_object("django.conf:settings", namespace="CELERY")

    assert app.conf.task_default_queue == "of-django"
    assert app.conf.task_always_eager


def test_tasks_are_discovered_in_the_installed_apps(app: App) -> None:
    app.autodiscover_tasks()

    app.import_modules()

    assert fixup_of(app).autodiscover_tasks() == ["django.contrib.contenttypes"]


def test_a_call_on_commit_waits_for_it_and_is_not_made_after_a_rollback(app: App) -> None:
    app.conf.task_always_eager = True
    seen: list[str] = []

    @app.task
    def note(word: str) -> None:
        seen.append(word)

    assert isinstance(note, DjangoTask)
    with transaction.atomic():
        note.delay_on_commit("kept")
        note.apply_async_on_commit(("too",), countdown=1)
        assert seen == []
    with transaction.atomic():
        note.delay_on_commit("undone")
        transaction.set_rollback(True)
    note.delay_on_commit("at once")

    assert seen == ["kept", "too", "at once"]


def test_a_task_class_of_ones_own_stays(app: App) -> None:
    class Own(Task[..., Value]):
        """A base of tasks."""

    with App("own", task_cls=Own, set_as_current=False) as own:
        assert issubclass(own.Task, Own)
        assert not issubclass(own.Task, DjangoTask)


@pytest.mark.parametrize("moment", ["on_task_prerun", "on_task_postrun"])
def test_connections_are_closed_around_a_task_but_not_inside_the_callers(app: App, moment: str) -> None:  # fmt: skip
    close = getattr(fixup_of(app), moment)
    connection.ensure_connection()

    close(in_worker(app, is_eager=True))
    close(in_worker(App("other", set_as_current=False)))
    assert connection.connection is not None
    close(in_worker(app))

    assert connection.connection is None


def test_connections_are_used_again_where_the_setting_says_so(app: App) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "CELERY_DB_REUSE_MAX", 1, raising=False)
        app.import_modules()
    connection.ensure_connection()
    is_open = []

    for _ in range(4):
        fixup_of(app).on_task_prerun(in_worker(app))
        is_open.append(connection.connection is not None)

    assert is_open == [True, True, False, False]


def test_a_child_lets_go_of_the_connection_it_was_forked_with(app: App) -> None:
    near, far = os.pipe()
    closed: list[str] = []
    connection.ensure_connection()
    own = connection.connection
    connection.connection = SimpleNamespace(fileno=lambda: near, close=lambda: closed.append("yes"))  # fmt: skip

    fixup_of(app).on_worker_process_init()

    assert connection.connection is None
    assert closed == ["yes"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(near)
    os.close(far)
    own.close()


async def test_on_an_event_loop_connections_are_left_to_django(app: App) -> None:
    connections["default"].connection = opened = SimpleNamespace(close=lambda: None)

    fixup_of(app).on_task_prerun(in_worker(app))

    assert connections["default"].connection is opened
    connections["default"].connection = None
