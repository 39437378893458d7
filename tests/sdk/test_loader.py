"""app.loader: how Celery's programs have tasks imported."""

import datetime as dt
import sys
from pathlib import Path

import pytest

from tests.sdk.conftest import MakeApp


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of the working directory, which is not on the path."""
    (tmp_path / "loaded_first.py").write_text("tasks = 1\n")
    (tmp_path / "loaded_second").mkdir()
    (tmp_path / "loaded_second" / "__init__.py").touch()
    (tmp_path / "loaded_second" / "tasks.py").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("modules")
def test_modules_of_tasks_are_imported_by_the_loader(make_app: MakeApp) -> None:
    app = make_app(imports=["json"], include=["string", "json"])
    path = list(sys.path)

    assert app.loader.import_task_module("loaded_first").tasks == 1
    assert sys.path == path
    assert app.loader.import_module(".decoder", "json").__name__ == "json.decoder"
    assert [one.__name__ for one in app.loader.import_default_modules()] == ["json", "string"]
    assert app.loader.default_modules == ("json", "string")
    assert app.loader.task_modules == {"loaded_first"}


def test_the_module_of_a_package_is_found_where_there_is_one(make_app: MakeApp) -> None:
    app = make_app()

    app.loader.autodiscover_tasks(["json", "concurrent"], "decoder")

    assert app.loader.task_modules == {"json.decoder"}


def test_the_loader_knows_the_apps_settings_and_the_time(make_app: MakeApp) -> None:
    app = make_app()

    assert app.loader is app.loader
    before = app.loader.configured
    assert app.loader.conf.task_default_queue == "celery"
    assert (before, app.loader.configured) == (False, True)
    assert app.loader.now().tzinfo is dt.UTC
    assert app.loader.now(utc=False).tzinfo is not None
