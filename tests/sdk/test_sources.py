"""Modules that are imported because a setting or autodiscover_tasks names them, and arguments that are settings."""

import sys
from pathlib import Path

import pytest

from qbroker import signals
from qbroker.app import sources
from tests.sdk.conftest import MakeApp


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("disco_one", "disco_two", "disco_broken"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    (tmp_path / "disco_one" / "tasks.py").touch()
    (tmp_path / "disco_broken" / "tasks.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("disco_")]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_tasks_are_discovered_when_a_worker_imports_its_modules(
    make_app: MakeApp, packages: Path
) -> None:
    app, other = make_app(), make_app()

    app.autodiscover_tasks(lambda: ["disco_one", "disco_two"])

    assert "disco_one.tasks" not in sys.modules
    other.import_modules()
    assert "disco_one.tasks" not in sys.modules
    app.import_modules()
    assert "disco_one.tasks" in sys.modules
    assert "disco_two" in sys.modules


def test_a_missing_package_is_an_error_and_a_missing_module_of_it_is_not(
    make_app: MakeApp, packages: Path
) -> None:
    app = make_app()

    app.autodiscover_tasks(["disco_two"], related_name="no_such_part", force=True)
    app.autodiscover_tasks(["disco_two.Config"], force=True)

    with pytest.raises(ModuleNotFoundError, match="disco_absent"):
        app.autodiscover_tasks(["disco_absent"], force=True)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        app.autodiscover_tasks(["disco_broken"], force=True)


def test_an_error_in_a_discovered_module_ends_the_worker_and_is_not_only_logged(
    make_app: MakeApp, packages: Path
) -> None:
    app = make_app()
    app.autodiscover_tasks(["disco_broken"])

    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        app.import_modules()


def test_the_signal_is_sent_to_others_too(make_app: MakeApp) -> None:
    app = make_app()
    seen: list[object] = []

    def note(sender: object, **_: object) -> None:
        seen.append(sender)

    signals.import_modules.connect(note)
    app.import_modules()
    signals.import_modules.disconnect(note)

    assert seen == [app]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker_concurrency", "is not name=value"),
        ("no_such_setting=1", "there is no setting 'no_such_setting'"),
        ("x=(complex)1", "must be one of any, bool"),
        ("x=(int)one", "'x': invalid literal"),
    ],
)
def test_an_argument_that_is_no_setting_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sources.parse_argument(text, "celery")
