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
