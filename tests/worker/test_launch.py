"""What the app decides where the command line is silent; as processes, for apps are imported."""

from pathlib import Path

import pytest

from tests.worker.test_cli import PROJECT, ended, started


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(PROJECT)
    return tmp_path


def test_a_malformed_broker_url_is_one_sentence_and_a_failure(project: Path) -> None:
    with started(project, "-A", "proj", "-b", "amqp://there") as process:
        code, output = ended(process)

    assert code == 1
    assert "'amqp://there'" in output.splitlines()[-1]


def test_a_pool_that_does_not_exist_is_one_sentence_and_a_failure(project: Path) -> None:
    with (project / "proj.py").open("a") as source:
        source.write("\napp.conf.worker_pool = 'eventlet'\n")

    with started(project, "-A", "proj") as process:
        code, output = ended(process)

    assert code == 1
    assert "worker_pool is 'eventlet'; it may be prefork, threads, asyncio or solo." in output


def test_the_pool_and_concurrency_of_the_app_are_taken_where_none_are_given(project: Path) -> None:
    with (project / "proj.py").open("a") as source:
        source.write("\napp.conf.worker_pool = 'threads'\napp.conf.worker_concurrency = 3\n")

    with started(project, "-A", "proj", "-b", "qbroker://127.0.0.1:1") as process:
        assert process.stdout is not None
        banner = "".join(next(process.stdout) for _ in range(8))

    assert "concurrency: 3 (threads)" in banner


def test_an_option_that_the_apps_pool_cannot_follow_is_one_sentence_and_a_failure(
    project: Path,
) -> None:
    with (project / "proj.py").open("a") as source:
        source.write("\napp.conf.worker_pool = 'threads'\n")

    with started(project, "-A", "proj", "--max-tasks-per-child", "5") as process:
        code, output = ended(process)

    assert code == 1
    assert "--max-tasks-per-child cannot be used with the threads pool" in output


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo", "asyncio"])
def test_a_worker_of_an_app_without_tasks_says_how_tasks_are_imported(
    tmp_path: Path, pool: str
) -> None:
    text = "from qbroker import App\napp = App('empty', worker_max_tasks_per_child=5)\n"
    (tmp_path / "empty.py").write_text(text)
    lines = []

    with started(tmp_path, "-A", "empty", "-P", pool, "-b", "qbroker://127.0.0.1:1") as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if ("no effect" in line.lower()) or (pool == "prefork" and "no tasks" in line):
                break

    output = "".join(lines)
    assert "The app 'empty' has no tasks" in output
    assert "include=" in output
    assert "autodiscover_tasks()" in output
