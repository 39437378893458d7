"""What `qbroker migrate-check` says about a program written for Celery."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from qbroker.app.sending import OPTIONS_NEEDLESS
from qbroker.bin.migrate_check import check, findings
from qbroker.cli.main import qbroker

PROGRAM = """\
from celery import Celery, bootsteps, shared_task
from celery.schedules import crontab
import celery.concurrency.base
from kombu import Connection, Queue
from kombu.transport.redis import Channel
from django_celery_results.models import TaskResult

app = Celery("proj", broker="amqp://me:secret@host//", backend="redis://host/0")
app.conf.broker_pool_limit = 3
app.conf.update(worker_pool="gevent", task_acks_late=True)
app.conf["task_serializer"] = "json"
app.steps["worker"].add(object)


@app.task(bind=True, backend=None, max_retries=3)
def add(self, x, y):
    add.apply_async((1, 2), countdown=3, retry=False, colour="red")
    pool.apply_async(add, kwds={}, callback=print)


class Old(celery.Task):
    send_error_emails = True
"""


def said(text: str) -> list[tuple[int, str, str]]:
    return [(one.line, one.kind, one.sentence) for one in findings(text, "proj.py")]


def test_imports_are_replaced_name_by_name() -> None:
    lines = [(line, sentence) for line, kind, sentence in said(PROGRAM) if line <= 6]

    assert lines == [
        (1, "qbroker has nothing in the place of celery.bootsteps."),
        (1, "replace `from celery import Celery, shared_task` by `from qbroker import Celery, shared_task`."),
        (2, "replace `from celery.schedules import crontab` by `from qbroker.schedules import crontab`."),
        (3, "qbroker has nothing in the place of the module celery.concurrency.base."),
        (4, "qbroker has nothing in the place of kombu.Connection."),
        (4, "replace `from kombu import Queue` by `from qbroker.messaging import Queue`."),
        (5, "qbroker has nothing in the place of the module kombu.transport.redis."),
        (6, "django_celery_results keeps results in Django's database; results are in the broker."),
    ]  # fmt: skip


def test_decorators_of_early_days_are_where_celery_has_them() -> None:
    lines = said("from celery import task, uuid\nfrom celery.decorators import periodic_task\n")

    assert lines == [
        (1, "change", "replace `from celery import task, uuid` by `from qbroker import task, uuid`."),
        (2, "change", "replace `from celery.decorators import periodic_task` by `from qbroker.decorators import periodic_task`."),
    ]  # fmt: skip


def test_settings_are_found_wherever_they_are_set_and_no_password_is_shown() -> None:
    lines = [(line, kind, sentence) for line, kind, sentence in said(PROGRAM) if 8 <= line <= 12]

    assert [(line, kind) for line, kind, _ in lines] == [
        (8, "change"), (8, "change"), (9, "note"), (10, "change"), (12, "change"),
    ]  # fmt: skip
    assert "names a broker of 'amqp'" in lines[0][2]
    assert "names a backend of 'redis'" in lines[1][2]
    assert "there is one broker" in lines[2][2]
    assert "worker_pool is 'gevent'" in lines[3][2]
    assert "the app has no steps" in lines[4][2]
    assert "secret" not in str(lines)


def test_options_of_tasks_and_calls_are_told_and_other_peoples_pools_are_not() -> None:
    lines = [(line, kind, sentence) for line, kind, sentence in said(PROGRAM) if line > 14]

    assert [(line, kind) for line, kind, _ in lines] == [
        (15, "note"), (17, "change"), (17, "note"), (22, "note"),
    ]  # fmt: skip
    assert "the option backend of a task" in lines[0][2]
    assert "no option colour" in lines[1][2]
    assert "the option retry of a call" in lines[2][2]
    assert "send_error_emails" in lines[3][2]


@pytest.mark.parametrize("option", sorted(OPTIONS_NEEDLESS))
def test_an_option_that_changes_nothing_may_stay(option: str) -> None:
    assert [kind for _, kind, _ in said(f"add.apply_async({option}=None)")] == ["note"]


@pytest.mark.parametrize("text", [
    "BROKER_URL = 'redis://h'",
    "CELERY_BROKER_URL = 'redis://h'",
    "app.config_from_object({'broker_url': 'redis://h'})",
    "app.config_from_object(dict(broker_url='redis://h'))",
    "class Config:\n    BROKER_URL = 'redis://h'",
    "from celery import current_app\ncurrent_app.conf.broker_url = 'redis://h'",
])  # fmt: skip
def test_a_setting_is_one_in_each_of_its_places(text: str) -> None:
    assert any("names a broker of 'redis'" in sentence for _, _, sentence in said(text))


def test_names_in_small_letters_are_settings_in_the_module_that_configures(tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text("app.config_from_object('conf.queue')\nbroker_url = 'x://'\n")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "queue.py").write_text("broker_url = 'redis://h'\n")
    (tmp_path / "celeryconfig.py").write_text("worker_pool = 'eventlet'\n")

    found = [(Path(one.path).name, one.line) for one in check(tmp_path)]

    assert found == [("celeryconfig.py", 1), ("queue.py", 1)]


def test_settings_that_are_wrong_or_gone_are_notes() -> None:
    lines = said("CELERY_ACK_LATE = True\nCELERY_CHORD_PROPAGATES = True\n")

    assert lines == [
        (1, "note", "there is no setting CELERY_ACK_LATE; did you mean CELERY_ACKS_LATE?"),
        (2, "note", "CELERY_CHORD_PROPAGATES has no effect: a chord always fails with what failed in it."),
    ]  # fmt: skip


def test_with_the_alias_imports_of_what_there_is_may_stay(tmp_path: Path) -> None:
    (tmp_path / "proj.py").write_text(
        "import qbroker.compat.celery\nqbroker.compat.celery.install()\nfrom celery import Celery, bootsteps\n"
    )

    assert [one.sentence for one in check(tmp_path)] == [
        "qbroker has nothing in the place of celery.bootsteps."
    ]


def test_a_program_of_ours_has_nothing_to_change(tmp_path: Path) -> None:
    path = tmp_path / "proj.py"
    path.write_text(
        "from qbroker import Celery\n"
        "app = Celery('proj', broker='qbroker://127.0.0.1:7450', backend='rpc://')\n"
    )

    ran = CliRunner().invoke(qbroker, ["migrate-check", str(path)])

    assert (ran.exit_code, ran.output) == (0, "Nothing has to change.\n")


def test_the_command_runs_nothing_and_says_file_and_line(tmp_path: Path) -> None:
    ruins = tmp_path / "ruins"
    (tmp_path / "proj.py").write_text(
        f"import celery\nopen({str(ruins)!r}, 'w')\nCELERY_TASK_PROTOCOL = 2\n"
    )
    (tmp_path / "old.py").write_text("print 'hello'\n")

    ran = CliRunner().invoke(qbroker, ["migrate-check", str(tmp_path)])
    as_json = CliRunner().invoke(qbroker, ["migrate-check", str(tmp_path), "--json"])

    assert ran.exit_code == as_json.exit_code == 1
    lines = ran.output.splitlines()
    assert lines[0].startswith(f"{tmp_path}/old.py:1: cannot be read as Python")
    assert lines[1:3] == [
        f"{tmp_path}/proj.py:1: replace `import celery` by `import qbroker`.",
        f"{tmp_path}/proj.py:3: note: CELERY_TASK_PROTOCOL has no effect: publishing is always confirmed, and always tried again until broker_connection_timeout.",
    ]
    assert lines[3] == "2 lines to change, 1 note."
    assert [one["line"] for one in json.loads(as_json.output)] == [1, 1, 3]
    assert not ruins.exists()


def test_notes_alone_are_no_failure(tmp_path: Path) -> None:
    (tmp_path / "settings.py").write_text("CELERY_TASK_PROTOCOL = 2\n")

    ran = CliRunner().invoke(qbroker, ["migrate-check", str(tmp_path)])

    assert ran.exit_code == 0
    assert ran.output.endswith("0 lines to change, 1 note.\n")


def test_of_billiard_there_are_exceptions() -> None:
    found = said(
        "from billiard.exceptions import SoftTimeLimitExceeded\nfrom billiard import current_process\n"
    )

    assert [sentence for _, _, sentence in found] == [
        "replace `from billiard.exceptions import SoftTimeLimitExceeded` by `from qbroker.exceptions import SoftTimeLimitExceeded`.",
        "billiard qbroker's pools use multiprocessing's own processes, so billiard tells nothing about them.",
    ]
