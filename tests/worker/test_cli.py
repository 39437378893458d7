"""The program itself, as a process: what it prints, its signals, its exit codes."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from qbroker_proto.v1.message_pb2 import Message
from qbroker_proto.v1.worker_pb2 import OUTCOME_SUCCESS, OUTCOME_WORKER_LOST
from qbroker_worker.cli import worker
from tests.worker.fake_broker import FakeBroker, serving
from tests.worker.toys import PATIENCE_S, gate, has_begun, release

PROJECT = """
import os
from pathlib import Path
from qbroker import App

app = App("proj")

@app.task
def add(x, y):
    return x + y

@app.task
def wait(door):
    began = os.open(f"{door}.began", os.O_RDWR)
    os.write(began, b"!")
    Path(door).read_bytes()
    os.close(began)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(PROJECT)
    return tmp_path


@contextlib.contextmanager
def started(project: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """`qbroker worker` in the project's folder."""
    with subprocess.Popen(
        [sys.executable, "-m", "qbroker", "worker", *options],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and all that was printed."""
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output


def publish(broker: FakeBroker, id_: str, task: str, body: str) -> None:
    message = Message(id=id_, task=task, content_type="application/json", body=body.encode())
    broker.publish(id_, message.SerializeToString(), task)


@pytest.mark.parametrize("pool", ["threads", "solo", "asyncio"])
def test_an_option_that_the_pool_cannot_follow_is_a_usage_error(pool: str) -> None:
    words = ["-A", "proj", "-P", pool, "--max-tasks-per-child", "5"]

    result = CliRunner().invoke(worker, words)

    assert result.exit_code == 2
    assert f"--max-tasks-per-child cannot be used with the {pool} pool" in result.output


def test_a_soft_time_limit_above_the_hard_one_is_a_usage_error() -> None:
    words = ["-A", "proj", "--time-limit", "1", "--soft-time-limit", "5"]

    result = CliRunner().invoke(worker, words)

    assert result.exit_code == 2
    assert "--soft-time-limit 5 must be at most --time-limit 1" in result.output


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
async def test_term_finishes_what_runs_returns_the_rest_and_exits_with_zero(
    project: Path, pool: str
) -> None:
    broker = FakeBroker()
    door = gate(project / "door")
    publish(broker, "sum", "proj.add", "[[2, 2], {}, {}]")
    publish(broker, "long", "proj.wait", f'[["{door}"], {{}}, {{}}]')
    async with serving(broker) as port:
        options = ("-A", "proj", "-c", "1", "-P", pool, "-l", "INFO")
        with started(project, *options, "-b", f"qbroker://127.0.0.1:{port}") as process:
            await has_begun(door)
            publish(broker, "rest", "proj.add", "[[1, 1], {}, {}]")

            process.send_signal(signal.SIGTERM)
            await broker.until(lambda b: b.has_drained)
            await release(door)
            await broker.until(lambda b: b.has_left)
            code, output = await asyncio.to_thread(ended, process)

    assert code == 0
    assert {broker.settled[id_][0] for id_ in ("sum", "long")} == {OUTCOME_SUCCESS}
    assert [delivery.id for delivery in broker.queued] == ["rest"]
    assert "  . proj.add\n" in output
    assert "Task proj.add[sum] received" in output
    assert ": 4\n" in output
    assert "worker: Warm shutdown (MainProcess)" in output


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
async def test_quit_ends_what_runs_and_tells_the_broker(project: Path, pool: str) -> None:
    broker = FakeBroker()
    door = gate(project / "door")
    publish(broker, "long", "proj.wait", f'[["{door}"], {{}}, {{}}]')
    async with serving(broker) as port:
        url = f"qbroker://127.0.0.1:{port}"
        with started(project, "-A", "proj", "-c", "1", "-P", pool, "-b", url) as process:
            await has_begun(door)

            process.send_signal(signal.SIGQUIT)
            await broker.until(lambda b: b.has_left)
            code, output = await asyncio.to_thread(ended, process)

    assert code == 1
    assert broker.settled["long"][0] == OUTCOME_WORKER_LOST
    assert "worker: Cold shutdown (MainProcess)" in output


async def test_a_signal_to_the_whole_process_group_is_a_warm_shutdown_too(project: Path) -> None:
    broker = FakeBroker()
    door = gate(project / "door")
    publish(broker, "long", "proj.wait", f'[["{door}"], {{}}, {{}}]')
    async with serving(broker) as port:
        url = f"qbroker://127.0.0.1:{port}"
        with started(project, "-A", "proj", "-c", "1", "-b", url) as process:
            await has_begun(door)

            for member in psutil.Process(process.pid).children(recursive=True):
                os.kill(member.pid, signal.SIGINT)
            process.send_signal(signal.SIGINT)
            await broker.until(lambda b: b.has_drained)
            await release(door)
            await broker.until(lambda b: b.has_left)
            code, _ = await asyncio.to_thread(ended, process)

    assert code == 0
    assert broker.settled["long"][0] == OUTCOME_SUCCESS


def test_an_app_that_is_not_there_is_one_sentence_and_a_failure(project: Path) -> None:
    with started(project, "-A", "nosuch") as process:
        code, output = ended(process)

    assert code == 1
    assert output.startswith("Error: -A 'nosuch': there is no module 'nosuch'")


@pytest.mark.parametrize("pool", ["prefork", "spawn", "threads", "asyncio", "solo"])
def test_an_app_that_fails_to_load_is_one_sentence_that_names_the_line(
    project: Path, pool: str
) -> None:
    (project / "broken.py").write_text("def divide():\n    1 / 0\n\ndivide()\n")
    options = ("--pool-start-method", "spawn") if pool == "spawn" else ("-P", pool)

    with started(project, "-A", "broken", *options) as process:
        code, output = ended(process)

    assert code == 1
    assert output == (
        "Error: -A 'broken': the app cannot be loaded: ZeroDivisionError: division by zero "
        "(broken.py, line 2); -l DEBUG shows the traceback\n"
    )


def test_an_app_that_fails_to_load_shows_its_traceback_at_debug(project: Path) -> None:
    (project / "broken.py").write_text("1 / 0\n")

    with started(project, "-A", "broken", "-l", "DEBUG") as process:
        code, output = ended(process)

    assert code == 1
    assert "Traceback" in output
    assert output.splitlines()[-1].startswith("Error: -A 'broken'")


@pytest.mark.parametrize("place", ["argument", "module", "late"])
def test_a_result_backend_of_another_kind_is_one_sentence(project: Path, place: str) -> None:
    (project / "conf.py").write_text("result_backend = 'redis://:hunter2@h'\n")
    lines = {
        "argument": "app = App('mod', backend='redis://:hunter2@h')",
        "module": "app = App('mod', config_source='conf')",
        "late": "app = App('mod')\napp.conf.result_backend = 'redis://:hunter2@h'",
    }
    (project / "mod.py").write_text(f"from qbroker import App\n{lines[place]}\n")

    with started(project, "-A", "mod") as process:
        code, output = ended(process)

    assert code == 1
    assert output == (
        "Error: -A 'mod': the setting result_backend is 'redis://:**@h'; "
        "results are in the broker: set it to 'qbroker://'\n"
    )


def test_a_worker_without_an_app_says_how_to_name_one(project: Path) -> None:
    with started(project) as process:
        code, output = ended(process)

    assert code == 2
    assert "qbroker worker -A proj" in output


@pytest.mark.parametrize(
    ("option", "value"),
    [("-c", "some"), ("-c", "0"), ("--autoscale", "3,10"), ("--autoscale", "x")],
)
def test_a_count_of_another_form_is_refused_with_the_form_there_is(option: str, value: str) -> None:
    outcome = CliRunner().invoke(worker, ["-A", "proj", option, value])

    assert outcome.exit_code == 2
    assert f"Invalid value for '{option}'" in outcome.output.replace(" / '--concurrency'", "")
    assert repr(value) in outcome.output


@pytest.mark.parametrize(
    "options",
    [
        ("--autoscale", "2,1"),
        ("-c", "2", "--pool-start-method", "spawn"),
        ("-P", "threads"),
        ("-c", "1", "-B"),
    ],
)
async def test_settings_without_effect_are_logged_once_by_the_worker(
    project: Path, options: tuple[str, ...]
) -> None:
    broker = FakeBroker()
    publish(broker, "sum", "proj.add", "[[2, 2], {}, {}]")
    with (project / "proj.py").open("a") as file:
        file.write("\napp.conf.broker_pool_limit = 3\napp.conf.task_serialiser = 'json'\n")
    async with serving(broker) as port:
        url = f"qbroker://127.0.0.1:{port}"
        with started(project, "-A", "proj", "-b", url, *options) as process:
            await broker.until(lambda b: "sum" in b.settled)
            process.send_signal(signal.SIGTERM)
            code, output = await asyncio.to_thread(ended, process)

    assert code == 0
    assert output.count("These settings have no effect in qbroker: broker_pool_limit") == 1
    assert output.count("did you mean 'task_serializer'?") == 1


def test_settings_that_cannot_be_used_stop_the_worker(project: Path) -> None:
    with (project / "proj.py").open("a") as file:
        file.write("\napp.conf.timezone = 'Europe/Berln'\napp.conf.task_routes = 5\n")

    with started(project, "-A", "proj") as process:
        code, output = ended(process)

    assert code == 1
    assert output.startswith("Error: -A 'proj': the setting task_routes must be")
    assert "the setting timezone must be the name of a time zone" in output
    assert len(output.splitlines()) == 1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("-Q", ""),
        ("-X", " "),
        ("-I", "a,,b"),
        ("-A", ""),
        ("-b", ""),
        ("-n", "a b@%h"),
        ("-f", ""),
        ("--pidfile", ""),
    ],
)
def test_empty_and_malformed_values_are_usage_errors(option: str, value: str) -> None:
    result = CliRunner().invoke(worker, ["-A", "proj", option, value])

    assert result.exit_code == 2
    assert repr(value) in result.output


@pytest.mark.parametrize("option", ["--pidfile", "-f"])
@pytest.mark.parametrize("detach", [False, True])
def test_a_file_that_cannot_be_written_is_one_sentence_and_a_failure(
    project: Path, option: str, *, detach: bool
) -> None:
    path = str(project / "missing" / "x")
    more = ("-D",) if detach else ()

    with started(project, "-A", "proj", option, path, *more) as process:
        code, output = ended(process)

    assert code == 1
    assert f"{path!r} cannot be written: No such file or directory" in output
    assert "Traceback" not in output


BROKEN = """
import warnings
print("a print")
warnings.warn("a warning")
raise RuntimeError("broken")
"""


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_each_line_of_a_json_log_is_an_object_also_when_the_start_fails(
    project: Path, pool: str
) -> None:
    (project / "broken.py").write_text(BROKEN)

    with started(
        project, "-A", "broken", "-P", pool, "-l", "DEBUG", "--log-format", "json"
    ) as process:
        code, output = ended(process)
    lines = [json.loads(line) for line in output.splitlines()]

    assert code == 1
    assert any("a print" in line["message"] for line in lines)
    assert any("a warning" in line["message"] for line in lines)
    assert "RuntimeError: broken" in lines[-1]["message"]
    assert "Traceback" in lines[-1]["exception"]


@pytest.mark.parametrize("pool", ["prefork", "threads"])
async def test_each_line_of_a_json_log_is_an_object(project: Path, pool: str) -> None:
    broker = FakeBroker()
    publish(broker, "sum", "proj.add", "[[2, 2], {}, {}]")
    async with serving(broker) as port:
        options = ("-A", "proj", "-P", pool, "-l", "INFO", "--log-format", "json")
        with started(project, *options, "-b", f"qbroker://127.0.0.1:{port}") as process:
            await broker.until(lambda b: "sum" in b.settled)
            process.send_signal(signal.SIGTERM)
            code, output = await asyncio.to_thread(ended, process)
    lines = [json.loads(line) for line in output.splitlines()]

    assert code == 0
    assert lines[0]["queues"] == ["celery"]
    assert lines[0]["pool"] == pool
    assert any("sum" in line["message"] for line in lines[1:])


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        (["task_acks=True"], "there is no setting 'task_acks'"),
        ([".concurency=2"], "there is no setting 'worker_concurency'"),
        (["mail"], "'mail' is not name=value"),
        (["task_acks_late=perhaps"], "the setting task_acks_late must be a boolean"),
        (["result_backend=redis://:hunter2@h"], "the setting result_backend is 'redis://:**@h'"),
    ],
)
def test_a_setting_on_the_command_line_that_cannot_be_used_is_refused(
    settings: list[str], why: str
) -> None:
    ended = CliRunner().invoke(worker, ["-A", "proj", "--", *settings])

    assert ended.exit_code == 2
    assert why in " ".join(ended.output.split())


@pytest.mark.parametrize("pool", ["threads", "prefork", "spawn"])
async def test_settings_on_the_command_line_win_over_the_apps(project: Path, pool: str) -> None:
    broker = FakeBroker()
    publish(broker, "sum", "proj.shown", "[[], {}, {}]")
    with (project / "proj.py").open("a") as file:
        file.write(
            "\napp.conf.task_time_limit = 100\n"
            "@app.task(name='proj.shown')\ndef shown():\n"
            "    print(f'shown {app.conf.task_time_limit} {app.conf.worker_redirect_stdouts_level}')\n"
        )
    options = ("--pool-start-method", "spawn") if pool == "spawn" else ("-P", pool)
    async with serving(broker) as port:
        url = f"qbroker://127.0.0.1:{port}"
        words = ("--", "task_time_limit=50", ".redirect_stdouts_level=ERROR")
        with started(project, "-A", "proj", "-b", url, "-c", "1", *options, *words) as process:
            await broker.until(lambda b: "sum" in b.settled)
            process.send_signal(signal.SIGTERM)
            code, output = await asyncio.to_thread(ended, process)

    assert code == 0
    assert "shown 50.0 ERROR" in output
