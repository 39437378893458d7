"""What loading an app gives, and how it fails."""

import json
import logging
from pathlib import Path

import pytest

from qbroker import App
from qbroker.messaging import Broadcast, Exchange, Queue
from qbroker_proto.v1.admin_pb2 import Topology
from qbroker_proto.v1.message_pb2 import Message
from qbroker_worker.loading import Facts, Project, build_runs, facts_of
from qbroker_worker.pools.forkserver import Refusal
from qbroker_worker.values import FAILURE, SUCCESS, Restart

FACTS = Facts(
    app="proj",
    tasks=("proj.add", "proj.mul"),
    broker="qbroker://here",
    backend="",
    queue="celery",
    concurrency=None,
    pool="prefork",
    heard=("worker_ready",),
    log={},
    prefetch_multiplier=0,
    cancels_on_loss=False,
    soft_shutdown_s=0.0,
    is_soft_when_idle=False,
    queues=("celery",),
    aliases={},
    topologies={},
    is_direct=False,
    rates={"proj.add": 2.0},
)


def _app() -> App:
    app = App("proj", set_as_current=False)

    @app.task(name="proj.add")
    def add(x: int, y: int) -> int:
        return x + y

    return app


def _message(*args: object) -> bytes:
    body = json.dumps((args, {}, {})).encode()
    message = Message(id="id", task="proj.add", content_type="application/json", body=body)
    return message.SerializeToString()


def test_facts_are_the_same_in_another_process() -> None:
    assert Facts.decode(FACTS.encode()) == FACTS


def test_an_app_that_is_not_there_is_refused_with_a_sentence() -> None:
    project = Project(
        app="no.such.app", modules=(), broker=None, hostname="celery@here", loglevel=30
    )

    with pytest.raises(Refusal, match="there is no module 'no'"):
        project.load()


def test_a_run_has_no_log_line_where_nobody_would_read_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL)
    run = build_runs(_app(), hostname="celery@here").run

    good, bad = run(_message(2, 2), 1, False), run(_message("two"), 1, False)

    assert (good.outcome, good.level, good.line) == (SUCCESS, 0, "")
    assert (bad.outcome, bad.level, bad.line) == (FAILURE, 0, "")


def test_a_run_tells_how_it_went_in_celerys_words(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    run = build_runs(_app(), hostname="celery@here").run

    good, bad = run(_message(2, 2), 1, False), run(_message("two"), 1, False)

    assert good.level == logging.INFO
    assert good.line.startswith("Task proj.add[id] succeeded in ")
    assert good.line.endswith("s: 4")
    assert bad.level == logging.ERROR
    assert "Task proj.add[id] raised unexpected: TypeError(" in bad.line
    assert "Traceback" in bad.line


def test_a_worker_takes_from_the_apps_queues_and_says_what_they_need() -> None:
    app = App(
        "proj",
        set_as_current=False,
        worker_direct=True,
        task_queues=[
            Queue("celery"),
            Queue("images", Exchange("media", type="topic"), "image.#"),
            Broadcast("news", queue="own-news"),
        ],
    )

    facts = Facts.decode(facts_of(app).encode())

    assert facts.queues_of("celery@here", ()) == (
        "celery",
        "images",
        "own-news",
        "celery@here.dq2",
    )
    chosen = facts.queues_of("w", ("news", "plain"))
    assert chosen == ("own-news", "plain", "w.dq2")
    topology = Topology.FromString(facts.topology_of(chosen))
    assert [(one.name, one.type) for one in topology.exchanges] == [("news", "fanout")]
    assert [(one.name, one.is_auto_delete) for one in topology.queues] == [("own-news", True)]
    assert [(one.exchange, one.destination) for one in topology.bindings] == [("news", "own-news")]
    both = Topology.FromString(facts.topology_of(facts.queues))
    assert [one.name for one in both.exchanges] == ["celery", "media", "news"]


def test_facts_have_what_remote_commands_show_of_tasks_and_settings() -> None:
    app = _app()
    app.conf.task_acks_late = True
    app.conf.broker_url = "qbroker://me:secret@here:7450"
    app.conf.api_token = "hidden"  # noqa: S105 - no secret

    @app.task(name="proj.silent", send_events=False, max_retries=7)
    def silent() -> None: ...

    facts = Facts.decode(facts_of(app).encode())

    assert facts.attributes["proj.silent"]["max_retries"] == "7"
    assert facts.attributes["proj.add"]["acks_late"] == "True"
    assert facts.attributes["proj.add"]["name"] == "proj.add"
    assert not any(name.startswith("_") for name in facts.attributes["proj.add"])
    assert facts.silent_tasks == ("proj.silent",)
    assert facts.conf["task_acks_late"] is True
    assert "worker_concurrency" in facts.conf
    assert "task_acks_late" in facts.conf_set
    assert "worker_concurrency" not in facts.conf_set
    assert "secret" not in facts.conf["broker_url"]
    assert facts.conf["api_token"] != "hidden"  # noqa: S105 - the same
    assert "qbroker" in facts.report


def test_a_project_that_is_loaded_again_has_what_its_modules_hold_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = "from qbroker import App; app = App('again', set_as_current=False); app.task(name={!r})(print)"
    module = tmp_path / "project_that_changes.py"
    more = tmp_path / "more_of_it.py"
    module.write_text(source.format("before"))
    monkeypatch.syspath_prepend(tmp_path)
    project = Project(
        app="project_that_changes", modules=(), broker=None, hostname="celery@here", loglevel=30
    )
    loaded = project.load(redirects=False)
    assert loaded.reload is not None
    module.write_text(source.format("afterwards"))
    more.write_text("from project_that_changes import app; app.task(name='more')(print)")

    same = Facts.decode(loaded.reload(Restart(("more_of_it", "project_that_changes"))).facts)
    again = Facts.decode(loaded.reload(Restart(("project_that_changes",), reloads=True)).facts)

    assert {"before", "more"} <= set(same.tasks)
    assert "afterwards" not in same.tasks
    assert "afterwards" in again.tasks


@pytest.mark.parametrize("rate", ["0", "0/s", "0/m", "0/h", "0.0/m", 0, 0.0, ""], ids=repr)
@pytest.mark.parametrize("source", ["task", "annotation", "setting"])
def test_a_rate_of_zero_is_no_limit_wherever_it_is_set(rate: str | float, source: str) -> None:
    app = App("proj", set_as_current=False)
    if source == "annotation":
        app.conf.task_annotations = {"proj.add": {"rate_limit": rate}}
    app.conf.task_default_rate_limit = rate if source == "setting" else "5/s"
    own_rate = rate if source == "task" else None
    app.task(shared=False, name="proj.add", rate_limit=own_rate)(lambda: None)

    facts = facts_of(app)

    assert "proj.add" not in facts.rates
    assert facts.notes == ()


def test_a_bad_rate_of_one_task_is_a_warning_that_names_the_task() -> None:
    app = App("proj", set_as_current=False)
    app.task(shared=False, name="proj.bad", rate_limit="often")(lambda: None)
    app.task(shared=False, name="proj.good", rate_limit="30/m")(lambda: None)

    facts = facts_of(app)

    assert facts.rates == {"proj.good": 0.5}
    (note,) = facts.notes
    assert "'proj.bad'" in note
    assert "'often'" in note


def test_time_limits_of_options_are_what_tasks_and_remote_commands_show(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "limited_by_options"
    text = "from qbroker import App\napp = App('proj', task_time_limit=100)\n@app.task\ndef add(): ...\n"
    (tmp_path / f"{module}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    project = Project(
        app=module,
        modules=(),
        broker=None,
        hostname="celery@here",
        loglevel=30,
        time_limit=20.0,
        soft_time_limit=10.0,
    )

    facts = Facts.decode(project.load(redirects=False).facts)

    attributes = facts.attributes[f"{module}.add"]
    assert (attributes["time_limit"], attributes["soft_time_limit"]) == ("20.0", "10.0")
    assert (facts.conf["task_time_limit"], facts.conf["task_soft_time_limit"]) == (20.0, 10.0)
