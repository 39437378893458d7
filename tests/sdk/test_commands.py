"""Celery's commands that make an app: call, result, status, purge, report, and those of qctl with -A."""

import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qbroker import App
from qbroker.cli.main import qbroker
from qbroker.cli.qctl import qctl
from qbroker.exceptions import TaskRevokedError
from qbroker.serialization import Value
from qbroker.worker.control import Panel
from qbroker_proto.v1.message_pb2 import Result as WireResult
from tests.sdk.conftest import Hire
from tests.sdk.real_broker import RealBroker, ToyWorker

PROJECT = """
from qbroker import App
from qbroker.worker.control import control_command

app = App("typed", broker={url!r}, backend="qbroker://")
app.conf.task_default_queue = "mail"


@app.task
def add(x, y):
    return x + y


@control_command()
def own(state):
    "Something of the app's."
"""


def answers(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    return {"ok": "pong"} if name == "ping" else {"ok": name}


@pytest.fixture
def project(
    tmp_path: Path, real_broker: RealBroker, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """A module with an app, to be named after -A."""
    name = "typed_project"
    (tmp_path / f"{name}.py").write_text(PROJECT.format(url=real_broker.url))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield name
    module = sys.modules.pop(name, None)
    if module is not None:
        module.app.close()
    for registry in (Panel.data, Panel.meta):
        registry.pop("own", None)


def by_qctl(broker: RealBroker, *arguments: str) -> Result:
    return CliRunner().invoke(qctl, ["-b", broker.url, *arguments])


def by_app(project: str, *arguments: str, **more: Value) -> Result:
    return CliRunner().invoke(qbroker, ["-A", project, *arguments], **more)


def said(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_task_is_called_and_its_result_shown(real_broker: RealBroker, real_app: App) -> None:
    real_app.task(name="t")(lambda x, y=0: x + y)
    pending = said(by_qctl(real_broker, "call", "t", "-a", "[2]", "-k", '{"y": 3}')).strip()
    before = said(by_qctl(real_broker, "result", pending))
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    assert before == "PENDING\n"
    assert said(by_qctl(real_broker, "result", pending)) == "5\n"
    assert said(by_qctl(real_broker, "result", pending, "--timeout", "10")) == "5\n"
    assert json.loads(said(by_qctl(real_broker, "result", pending, "--json"))) == {
        "id": pending,
        "state": "SUCCESS",
        "result": 5,
        "traceback": None,
    }


def test_a_failure_is_shown_with_its_traceback_where_asked_for(
    real_broker: RealBroker, real_app: App
) -> None:
    def fail() -> None:
        raise ValueError("no")

    real_app.task(name="t")(fail)
    failed = said(by_qctl(real_broker, "call", "t")).strip()
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    plain = by_qctl(real_broker, "result", failed)
    assert (plain.exit_code, plain.stdout, plain.stderr) == (1, "", "FAILURE ValueError: no\n")
    traced = by_qctl(real_broker, "result", failed, "--traceback")
    assert (traced.exit_code, "Traceback" in traced.stdout) == (1, True)
    as_json = by_qctl(real_broker, "result", failed, "--json")
    assert as_json.exit_code == 1
    assert json.loads(as_json.stdout)["result"] == "ValueError('no')"


@pytest.mark.parametrize(
    ("state", "value", "code", "out", "err"),
    [
        ("SUCCESS", None, 0, "None\n", ""),
        ("FAILURE", ValueError(), 1, "", "FAILURE ValueError\n"),
        ("FAILURE", KeyError("name"), 1, "", "FAILURE KeyError: 'name'\n"),
        ("REVOKED", TaskRevokedError("ops"), 1, "", "REVOKED TaskRevokedError: ops\n"),
    ],
)
def test_how_a_task_ended_is_the_exit_code_of_result(
    real_broker: RealBroker, real_app: App, state: str, value: Value, code: int, out: str, err: str
) -> None:
    real_app.backend.store_result("x", value, state)

    for options in ([], ["--timeout", "10"]):
        shown = by_qctl(real_broker, "result", "x", *options)
        assert (shown.exit_code, shown.stdout, shown.stderr) == (code, out, err)
    assert by_qctl(real_broker, "result", "x", "--json").exit_code == code


def test_a_task_that_goes_on_shows_its_state(real_broker: RealBroker, real_app: App) -> None:
    result = real_app.send_task("t")

    assert said(by_qctl(real_broker, "result", result.id)) == "PENDING\n"
    real_app.backend.store_result(result.id, {"done": 3}, "PROGRESS")
    assert said(by_qctl(real_broker, "result", result.id)) == "PROGRESS {'done': 3}\n"
    real_app.backend.store_result(result.id, ValueError("again"), "RETRY")
    assert said(by_qctl(real_broker, "result", result.id)) == "RETRY ValueError: again\n"
    late = by_qctl(real_broker, "result", result.id, "--timeout", "0.05")
    assert (late.exit_code, late.stdout) == (1, "")
    assert "timed out after 0.05 s: no connected worker" in late.stderr


def test_an_unknown_id_and_a_result_that_was_not_kept_are_not_found(
    real_broker: RealBroker, real_app: App, project: str
) -> None:
    real_app.backend.store_result("forgotten", 3, "SUCCESS")
    real_app.backend.forget("forgotten")

    for options in ([], ["--timeout", "0.05"], ["--json"], ["--traceback"]):
        assert by_qctl(real_broker, "result", "nope", *options).exit_code == 3
    assert by_app(project, "result", "nope").exit_code == 3
    assert by_qctl(real_broker, "result", "forgotten").exit_code == 3


def test_a_result_that_cannot_be_read_is_an_error(real_broker: RealBroker, real_app: App) -> None:
    pickled = WireResult(
        state="SUCCESS", content_type="application/x-python-serialize", body=b"not for everybody"
    )
    real_app.client().keep("x", pickled.SerializeToString(), 60_000, "SUCCESS")

    for options in ([], ["--timeout", "10"], ["--json"]):
        shown = by_qctl(real_broker, "result", "x", *options)
        assert shown.exit_code == 1
        assert shown.stderr.startswith("unreadable: SUCCESS ")


@pytest.mark.parametrize(
    ("option", "value", "stage"),
    [
        ("--countdown", "100", "scheduled"),
        ("--eta", "2100-01-01T00:00:00+00:00", "scheduled"),
        ("--expires", "100", "queued"),
        ("--queue", "mail", "queued"),
        ("--priority", "9", "queued"),
    ],
)
def test_a_call_takes_celerys_options(
    real_broker: RealBroker, real_app: App, option: str, value: str, stage: str
) -> None:
    called = said(by_qctl(real_broker, "call", "t", option, value)).strip()

    assert real_app.AsyncResult(called).stage == stage


@pytest.mark.parametrize(
    "arguments",
    [
        ("-a", "2"),
        ("-a", "["),
        ("-k", "[]"),
        ("--eta", "soon"),
    ],
)
def test_a_call_that_is_not_valid_is_2(real_broker: RealBroker, arguments: tuple[str, ...]) -> None:
    assert by_qctl(real_broker, "call", "t", *arguments).exit_code == 2


def test_a_call_that_no_connected_worker_would_run_says_so_and_is_stored(
    real_broker: RealBroker, real_app: App
) -> None:
    real_app.task(name="proj.total")(lambda: None)
    worker = ToyWorker(real_app, real_broker.url)

    known = by_qctl(real_broker, "call", "proj.total")
    typo = by_qctl(real_broker, "call", "proj.totl")
    lost = by_qctl(real_broker, "call", "proj.total", "--queue", "celry")
    worker.leave()

    assert known.stderr == ""
    assert (
        "No connected worker knows the task 'proj.totl' (did you mean 'proj.total'?)" in typo.stderr
    )
    assert (
        "No connected worker consumes from its queue 'celry' (did you mean 'celery'?)"
        in lost.stderr
    )
    assert [found.exit_code for found in (known, typo, lost)] == [0, 0, 0]
    assert real_app.AsyncResult(typo.stdout.strip()).stage == "queued"


def test_an_app_is_called_by_its_own_settings(project: str, real_broker: RealBroker) -> None:
    said(by_app(project, "call", f"{project}.add", "-a", "[2, 2]"))

    listed = said(by_qctl(real_broker, "list", "bindings"))
    assert "mail" in listed


def test_status_shows_nodes_in_celerys_form(project: str, hire: Hire) -> None:
    nobody = by_app(project, "status")
    hire("a@host", answers)

    assert nobody.exit_code == 69
    assert said(by_app(project, "status")) == "->  a@host: OK\n\n1 node online.\n"
    shown = said(by_app(project, "status", "--json")).splitlines()
    assert json.loads(shown[0]) == {"a@host": {"ok": "pong"}}


def test_what_qctl_has_works_for_an_app_too_with_its_own_commands(project: str, hire: Hire) -> None:
    hire("a@host", answers)

    assert said(by_app(project, "inspect", "ping", "-j")) == '{"a@host": {"ok": "pong"}}\n'
    assert "own" in said(by_app(project, "control", "own"))
    assert "qbroker -A proj inspect" in said(CliRunner().invoke(qbroker, ["inspect", "--help"]))


def test_purge_empties_the_apps_queue_or_those_that_are_named(project: str, real_app: App) -> None:
    for queue in ("mail", "mail", "other"):
        _ = real_app.send_task("t", queue=queue)

    refused = by_app(project, "purge", input="n\n")
    own = said(by_app(project, "purge", "-f"))
    none = said(by_app(project, "purge", "-f", "-Q", "mail,nosuch"))
    spared = said(by_app(project, "purge", "-f", "-Q", "mail,other", "-X", "mail"))

    assert refused.exit_code == 1
    assert own == "Purged 2 messages from 1 known task queue.\n"
    assert none == "No messages purged from 2 queues.\n"
    assert spared == "Purged 1 message from 1 known task queue.\n"


def test_events_are_lines_or_pictures(project: str, hire: Hire) -> None:
    worker = hire("a@host", answers)
    ended: list[Result] = []
    listening = threading.Thread(
        target=lambda: ended.append(by_app(project, "events", "--limit", "1"))
    )
    listening.start()
    never = threading.Event()
    while not worker.is_wanted:
        assert not never.wait(0.01)
    worker.tell("worker-heartbeat")
    listening.join(10)

    assert "a@host" in said(ended[0])
    assert "worker heartbeat" in ended[0].output
    none = by_app(project, "events", "-c", "nosuch:Camera")
    assert none.exit_code == 2
    assert "there is no camera" in none.output


def test_report_tells_of_client_and_broker(project: str, real_broker: RealBroker) -> None:
    for told in (said(by_app(project, "report")), said(by_qctl(real_broker, "report"))):
        assert "software -> qbroker:" in told
        assert "engine:memory" in told


def test_another_broker_than_the_apps_may_be_named(project: str) -> None:
    ended = CliRunner().invoke(
        qbroker, ["-A", project, "-b", "qbroker://127.0.0.1:1", "inspect", "ping", "-t", "0.001"]
    )

    assert ended.exit_code == 5


def test_without_an_app_the_address_is_enough(real_broker: RealBroker) -> None:
    ended = CliRunner().invoke(qbroker, ["-b", real_broker.url, "status"])

    assert ended.exit_code == 69


def test_a_shell_has_the_app_its_tasks_and_the_canvas_at_hand(project: str) -> None:
    typed = "print(app.main, add.name, chain(add.s(1, 2), add.s(3)))\n"

    output = by_app(project, "shell", "--python", input=typed).output

    assert f"typed {project}.add {project}.add(1, 2) | add(3)" in output
    # Tasks that other tests share with every app may be among them.
    names = output.partition("at hand: ")[2].partition("\n")[0].split(", ")
    assert {"AsyncResult", "add", "app", "celery", "chain"} <= set(names)


def test_a_shell_without_an_app_has_the_broker(real_broker: RealBroker) -> None:
    shell = CliRunner().invoke(
        qctl,
        ["-b", real_broker.url, "shell", "--python"],
        input="print(app.control.ping(timeout=1))\n",
    )

    assert "[]" in said(shell)
