"""Each source module has a test file of its name."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HOMES = {
    "server/qbroker_server/core": "core",
    "server/qbroker_server/engines": "engines",
    "server/qbroker_server": "server",
    "sdk/qbroker": "sdk",
    "worker/qbroker_worker": "worker",
}
"""Where the tests of a source folder live under tests/, at any depth; the first that fits counts."""

ELSEWHERE: dict[str, str] = {
    "sdk/qbroker/__main__.py": "It is one call; tests/sdk/cli/test_dev.py starts both programs by it.",
    "sdk/qbroker/_current.py": "Two proxies to what an app holds: tests/sdk/test_app.py",
    "sdk/qbroker/_state.py": "Which apps there are shows in the apps: tests/sdk/test_app.py",
    "sdk/qbroker/_version.py": "One constant, shown by the command: tests/sdk/cli/test_main.py",
    "sdk/qbroker/app/base.py": "It is the App: tests/sdk/test_app.py",
    "sdk/qbroker/app/composing.py": "Every canvas goes through it on its way: tests/sdk/test_workflow.py",
    "sdk/qbroker/app/defaults.py": "A table, held against its page: tests/docs/test_settings.py",
    "sdk/qbroker/app/pipeline.py": "It is app.pipeline(): tests/sdk/test_app.py",
    "sdk/qbroker/app/sending.py": "Every call goes through it: tests/sdk/test_app.py",
    "sdk/qbroker/app/task.py": "Another path to the same class: tests/sdk/test_package.py",
    "sdk/qbroker/clock.py": "It asks the machine; everybody else is given what it says, as in tests/sdk/test_ids.py",
    "sdk/qbroker/exceptions.py": "Classes; those that travel are tested on the way: tests/sdk/test_trace.py",
    "sdk/qbroker/local.py": "Lazy tasks are its use: tests/sdk/test_app.py",
    "sdk/qbroker/contrib/testing/manager.py": "It waits for a worker: tests/sdk/test_worker.py",
    "sdk/qbroker/inprocess.py": "What it finds is what tests use: tests/sdk/test_testing.py",
    "sdk/qbroker/ports.py": "A protocol, which the type checker tests with tests/sdk/test_task.py",
    "sdk/qbroker/request.py": "A running task's self.request: tests/sdk/test_trace.py",
    "sdk/qbroker/states.py": "Names, which results show: tests/sdk/test_result.py",
    "sdk/qbroker/app/registry.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/app/utils.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/backends/base.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/compat/billiard.py": "Packages import from it: tests/e2e/test_packages.py",
    "sdk/qbroker/bin/base.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/bin/call.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/bin/list.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/bin/multi.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/bin/purge.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/decorators.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/execute.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/loaders/base.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/registry.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/task/base.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/task/chords.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/task/schedules.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/task/sets.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/utils/functional.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/signals.py": "A list of signals; each is tested where it is sent: tests/sdk/test_trace.py",
    "sdk/qbroker/utils/iso8601.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/utils/objects.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/utils/saferepr.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/utils/imports.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/utils/nodenames.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/utils/timeutils.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/contrib/django/task.py": "It waits for commits of Django's: tests/sdk/test_django.py",
    "sdk/qbroker/bin/shell.py": "It is there for Celery's path: tests/sdk/test_paths.py",
    "sdk/qbroker/url.py": "A client is what has a URL: tests/sdk/test_client.py",
}
"""Modules without a test file of their name: why, and where they are tested instead."""

MODULES = sorted(
    str(path.relative_to(ROOT))
    for package in ("server/qbroker_server", "sdk/qbroker", "worker/qbroker_worker")
    for path in (ROOT / package).rglob("*.py")
    if path.name != "__init__.py"
)


@pytest.mark.parametrize("module", [m for m in MODULES if m not in ELSEWHERE])
def test_a_module_has_a_test_file_of_its_name(module: str) -> None:
    home = next(home for source, home in HOMES.items() if module.startswith(f"{source}/"))
    name = f"test_{Path(module).stem}.py"

    assert list((ROOT / "tests" / home).rglob(name)), f"write {name} below tests/{home}"


@pytest.mark.parametrize("module", ELSEWHERE)
def test_an_excused_module_exists_and_its_excuse_names_a_test(module: str) -> None:
    assert module in MODULES
    assert any((ROOT / word.strip(".,")).exists() for word in ELSEWHERE[module].split())
