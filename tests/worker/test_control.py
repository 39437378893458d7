"""Each remote command: its reply's shape, and what it does."""

import asyncio
import json
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from qbroker.serialization import Value
from qbroker.worker.control import BUILT_IN
from qbroker_proto.v1.message_pb2 import Message
from qbroker_worker import control
from qbroker_worker.aide import Aide
from qbroker_worker.control import Commands, State
from qbroker_worker.journal import Journal
from qbroker_worker.loading import Facts
from qbroker_worker.pools.pool import Restarted
from qbroker_worker.pools.threadguard import ThreadGuard
from qbroker_worker.pools.threads import ThreadsPool
from qbroker_worker.session import Heard, Session
from qbroker_worker.values import SUCCESS, Answer, Aside, Ask, Delivery, Finished, Restart
from tests.worker.toys import PATIENCE_S, lost_result, run

FACTS = Facts(
    app="proj",
    tasks=("proj.add", "celery.ping", "proj.mul"),
    broker="qbroker://127.0.0.1:7450",
    backend="",
    queue="celery",
    concurrency=None,
    pool="threads",
    soft_shutdown_s=0.0,
    is_soft_when_idle=False,
    queues=("celery",),
    aliases={"news": "bcast.a@host"},
    topologies={},
    is_direct=False,
    rates={},
    heard=(),
    log={},
    prefetch_multiplier=0,
    cancels_on_loss=False,
    attributes={"proj.add": {"rate_limit": "10/s", "max_retries": "3"}},
    conf={"task_acks_late": True, "timezone": None},
    conf_set=("task_acks_late",),
    report="software -> qbroker\n",
    commands=("double",),
)


class Link:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.queues: tuple[str, ...] = ("celery",)
        self.said: list[Aside] = []
        self.heard = asyncio.Event()

    def take_from(self, queues: tuple[str, ...]) -> None:
        self.queues = queues

    def say(self, aside: Aside) -> None:
        self.said.append(aside)
        self.heard.set()


class Helm:
    """Keeps what the worker is to do."""

    def __init__(self) -> None:
        self.bounds: tuple[int, int] | None = None
        self.restarts: list[tuple[Restart, Restarted]] = []
        self.slots_max = 8
        self.done: list[tuple[Value, ...]] = []
        self.limits: list[tuple[str, float | None, float | None]] = []

    def signalled(self, number: int) -> None:
        self.done.append(("signalled", number))

    def resize(self, slots: int) -> int:
        self.done.append(("resize", slots))
        return min(slots, self.slots_max)

    def autoscale(self, slots_max: int, slots_min: int) -> None:
        self.bounds = (slots_max, slots_min)

    def set_rate(self, task: str, per_s: float) -> None:
        self.done.append((task, per_s))

    def restart_pool(self, wanted: Restart, restarted: Restarted) -> None:
        self.restarts.append((wanted, restarted))

    def know(self, tasks: tuple[str, ...], rates: Mapping[str, float]) -> None:
        self.done.append(("know", tasks, rates))

    def limit(self, task: str, soft_s: float | None, hard_s: float | None) -> None:
        self.limits.append((task, soft_s, hard_s))


class Panel:
    """A worker to ask."""

    def __init__(self) -> None:
        self.link = Link()
        self.helm = Helm()
        self.session = Session(2)
        self.session.greet()
        self.journal = Journal(name="a@host", pid=7, now_ms=lambda: 5_000)
        ours, self.theirs = socket.socketpair()
        self.aide = Aide(ours)
        self.state = State(
            name="a@host",
            facts=FACTS,
            address="127.0.0.1:7450",
            pid=7,
            session=self.session,
            pool=ThreadsPool(run, slots=2, lost_result=lost_result, guard=ThreadGuard()),
            link=self.link,
            journal=self.journal,
            worker=self.helm,
            monotonic=lambda: 12.4,
            started_s=2.0,
        )
        self.commands = Commands(self.state, self.aide)

    def __call__(self, command: str, *words: str, **arguments: Value) -> Value:
        raw = json.dumps(arguments).encode() if arguments else b""
        self.commands.asked([Ask(1, command, raw, words)])
        answer = self.link.said.pop()
        assert isinstance(answer, Answer)
        assert answer.id == 1
        return json.loads(answer.body)

    def hold(self, id_: str, *, started: bool = False) -> Delivery:
        """Have a delivery, which runs since second 5 or not yet."""
        message = Message(
            id=id_,
            task="proj.add",
            queue="celery",
            priority=3,
            content_type="application/json",
            body=b'[[2, 2], {"z": 1}, {}]',
        ).SerializeToString()
        delivery = Delivery(id_, 1, True, "proj.add", "celery", False, message)
        self.session.heard(Heard(deliveries=[delivery]))
        if started:
            self.journal.started(delivery, 8)
        return delivery


@pytest.fixture
def panel() -> Iterator[Panel]:
    found = Panel()
    yield found
    found.theirs.close()
    found.aide.close()


INFO = {
    "id": "1",
    "name": "proj.add",
    "args": [2, 2],
    "kwargs": {"z": 1},
    "type": "proj.add",
    "hostname": "a@host",
    "time_start": 5.0,
    "acknowledged": True,
    "delivery_info": {
        "exchange": "",
        "routing_key": "celery",
        "priority": 3,
        "redelivered": True,
    },
    "worker_pid": 8,
}


async def test_ping(panel: Panel) -> None:
    assert panel("ping") == {"ok": "pong"}


async def test_active_tells_of_each_task_that_runs(panel: Panel) -> None:
    panel.hold("1", started=True)
    panel.hold("2")

    assert panel("active") == panel("dump_active") == [INFO]
    assert panel("active", safe=None) == [INFO]


async def test_active_shows_arguments_as_text_where_that_is_asked_for(panel: Panel) -> None:
    panel.hold("1", started=True)

    assert panel("active", safe=True) == [{**INFO, "args": "(2, 2)", "kwargs": "{'z': 1}"}]


async def test_query_task_tells_where_each_is_that_is_here(panel: Panel) -> None:
    panel.hold("1", started=True)
    panel.hold("2")
    waits = {**INFO, "id": "2", "time_start": None, "acknowledged": False, "worker_pid": None}

    assert panel("query_task", ids=["1", "2", "3"]) == {
        "1": ["active", INFO],
        "2": ["reserved", waits],
    }
    assert panel("query_task", "1") == panel("query_task", ids="1") == {"1": ["active", INFO]}


async def test_registered_names_tasks_with_their_attributes(panel: Panel) -> None:
    assert panel("registered") == ["proj.add [rate_limit=10/s]", "proj.mul"]
    assert panel("registered", "max_retries", "_app") == ["proj.add [max_retries=3]", "proj.mul"]
    assert panel("dump_tasks", builtins=True)[0] == "celery.ping"


async def test_stats_has_celerys_fields(panel: Panel) -> None:
    one = panel.hold("1", started=True)
    panel.journal.finished([Finished(one, SUCCESS, b"", False, 0.1, 0, "")])

    found = panel("stats")

    assert found["total"] == {"proj.add": 1}
    assert (found["pid"], found["uptime"], found["prefetch_count"]) == (7, 10, 2)
    assert found["clock"] == "1"
    assert found["pool"]["max-concurrency"] == 2
    assert found["pool"]["processes"] == [os.getpid()]
    assert found["pool"]["implementation"] == "qbroker_worker.pools.threads:ThreadsPool"
    assert (found["broker"]["hostname"], found["broker"]["port"]) == ("127.0.0.1", 7450)
    assert found["rusage"]["maxrss"] > 0


async def test_conf_shows_what_was_set_or_all(panel: Panel) -> None:
    assert panel("conf") == panel("dump_conf") == {"task_acks_late": True}
    assert panel("conf", "yes") == {"task_acks_late": True, "timezone": None}


async def test_report(panel: Panel) -> None:
    assert panel("report") == {"ok": "software -> qbroker\n"}


async def test_memory_is_sampled_and_dumped(panel: Panel) -> None:
    sample = panel("memsample")
    panel("memsample")
    lines = panel("memdump", samples=1).splitlines()

    assert sample.endswith("MB")
    assert float(sample.removesuffix("MB")) > 1
    assert len(lines) == 2
    assert lines[0].startswith("- rss (sample): ")
    assert lines[1].startswith("- rss (end): ")
    assert len(panel("memdump").splitlines()) == 1


async def test_objgraph_says_why_not(panel: Panel) -> None:
    assert "process that runs tasks" in panel("objgraph")["error"]


async def test_queues_are_added_and_taken_away(panel: Panel) -> None:
    answers = [
        panel("add_consumer", "mail"),
        panel("add_consumer", queue="mail", exchange=None, exchange_type="direct"),
        panel("cancel_consumer", "celery"),
        panel("add_consumer", "news"),
        panel("cancel_consumer", "news"),
    ]

    assert answers == [
        {"ok": "add consumer mail"},
        {"ok": "already consuming from 'mail'"},
        {"ok": "no longer consuming from celery"},
        {"ok": "add consumer bcast.a@host"},
        {"ok": "no longer consuming from bcast.a@host"},
    ]
    assert panel.link.queues == ("mail",)


async def test_events_are_enabled_and_disabled(panel: Panel) -> None:
    answers = [panel(f"{verb}_events")["ok"] for verb in ("enable", "enable", "disable", "disable")]

    assert answers == [
        "task events enabled",
        "task events already enabled",
        "task events disabled",
        "task events already disabled",
    ]


async def test_a_heartbeat_is_sent_and_answered_with_nothing(panel: Panel) -> None:
    beats: list[str] = []
    panel.journal.heartbeat = lambda: beats.append("beat")  # type: ignore[method-assign] # this one's own

    assert panel("heartbeat") is None
    assert beats == ["beat"]


async def test_shutdown_ends_the_worker_as_a_signal_does(panel: Panel) -> None:
    assert panel("shutdown") == {"ok": "shutting down"}
    assert panel.helm.done == [("signalled", signal.SIGTERM)]


async def test_a_pool_grows_and_shrinks_as_far_as_it_can(panel: Panel) -> None:
    answers = [panel("pool_grow", "2"), panel("pool_shrink", n=1), panel("pool_shrink", n=2)]
    panel.helm.slots_max = 2
    cannot = panel("pool_grow")

    assert answers[:2] == [{"ok": "pool will grow"}, {"ok": "pool will shrink"}]
    assert "it cannot run 2 fewer" in answers[2]["error"]
    assert panel.helm.done == [("resize", 4), ("resize", 1), ("resize", 3)]
    assert cannot == {"error": "the threads pool cannot be resized"}


async def test_the_bounds_of_scaling_are_changed_and_shown(panel: Panel) -> None:
    answers = [
        panel("autoscale", "10", "3"),
        panel("autoscale", max=2),
        panel("autoscale", "1", "2"),
    ]
    found = panel("stats")["autoscaler"]

    assert answers[:2] == [
        {"ok": "autoscale now max=10 min=3"},
        {"ok": "autoscale now max=2 min=2"},
    ]
    assert "1 <= min <= max" in answers[2]["error"]
    assert found == {"max": 2, "min": 2, "current": 2, "qty": 0}
    for verb in ("pool_grow", "pool_shrink"):
        assert panel(verb)["error"].startswith(f"{verb} is not supported with autoscale")


async def test_a_pool_restarts_where_the_app_lets_it_and_answers_when_its_modules_are_there(
    panel: Panel,
) -> None:
    refused = panel("pool_restart", modules=None, reload=False, reloader=None)
    panel.state.facts = replace(FACTS, conf={"worker_pool_restarts": True})
    panel.commands.asked([Ask(7, "pool_restart", b'{"modules": ["a"], "reload": true}')])
    panel.commands.asked([Ask(8, "pool_restart", b"")])
    before = list(panel.link.said)
    (first, restarted), (second, failed) = panel.helm.restarts

    restarted(replace(FACTS, tasks=("proj.new",), rates={"proj.new": 2.0}).encode(), "")
    failed(b"", "ImportError('no')")

    assert refused == {"error": "ValueError('Pool restarts not enabled')"}
    assert (first, second) == (Restart(("a",), reloads=True), Restart())
    assert before == []
    answers = [(one.id, json.loads(one.body)) for one in panel.link.said if isinstance(one, Answer)]
    assert answers == [(7, {"ok": "reload started"}), (8, {"error": "ImportError('no')"})]
    assert panel.helm.done == [("know", ("proj.new",), {"proj.new": 2.0})]
    assert panel.state.facts.tasks == ("proj.new",)


async def test_rates_of_tasks_are_changed(panel: Panel) -> None:
    answers = [
        panel("rate_limit", "proj.add", "120/m"),
        panel("rate_limit", task_name="proj.add", rate_limit=3),
        panel("rate_limit", "proj.add", "0"),
        panel("rate_limit", task_name="proj.add", rate_limit=None),
        panel("rate_limit", "proj.add", "0/m"),
        panel("rate_limit", task_name="proj.add", rate_limit=0.0),
    ]
    errors = [
        panel("rate_limit", "proj.add", "often")["error"],
        panel("rate_limit", "nosuch", "1/s")["error"],
    ]

    assert [answer["ok"] for answer in answers] == [
        "new rate limit set successfully",
        "new rate limit set successfully",
        *["rate limit disabled successfully"] * 4,
    ]
    assert panel.helm.done == [("proj.add", rate) for rate in (2.0, 3.0, 0.0, 0.0, 0.0, 0.0)]
    assert errors[0].startswith("Invalid rate limit string: ValueError(")
    assert errors[1] == "unknown task"


async def test_time_limits_of_tasks_are_changed(panel: Panel) -> None:
    answers = [
        panel("time_limit", "proj.add", "1.5", "3"),
        panel("time_limit", task_name="proj.mul", hard=None, soft=2),
        panel("time_limit", "nosuch", "1"),
    ]

    assert answers == [
        {"ok": "time limits set successfully"},
        {"ok": "time limits set successfully"},
        {"error": "unknown task"},
    ]
    assert panel.helm.limits == [("proj.add", 1.5, 3.0), ("proj.mul", 2, None)]
    assert panel("registered", "time_limit", "soft_time_limit") == [
        "proj.add [time_limit=3.0 soft_time_limit=1.5]",
        "proj.mul [soft_time_limit=2]",
    ]


@pytest.mark.parametrize(
    ("conf", "soft", "hard"),
    [
        ({}, 5, 1),
        ({"task_time_limit": 1.0}, 5, None),
        ({"task_soft_time_limit": 5.0}, None, 1),
        ({}, -1, None),
        ({}, None, float("nan")),
    ],
)
async def test_time_limits_that_cannot_hold_together_are_refused(
    panel: Panel, conf: dict[str, Value], soft: float | None, hard: float | None
) -> None:
    panel.state.facts = replace(FACTS, conf=conf)

    answer = panel("time_limit", task_name="proj.add", soft=soft, hard=hard)

    assert "time" in answer["error"] or "seconds" in answer["error"]
    assert panel.helm.limits == []


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (Ask(1, "nosuch", b""), "KeyError"),
        (Ask(1, "ping", b"{"), "Error"),
        (Ask(1, "conf", b"", ("maybe",)), "neither true nor false"),
        (Ask(1, "stats", b"", ("more",)), "takes: nothing"),
        (Ask(1, "add_consumer", b""), "TypeError"),
    ],
)
async def test_what_cannot_be_answered_is_an_error_and_the_worker_lives(
    panel: Panel, ask: Ask, error: str
) -> None:
    panel.commands.asked([ask, Ask(2, "ping", b"")])

    answers = [json.loads(one.body) for one in panel.link.said if isinstance(one, Answer)]
    assert error in answers[0]["error"]
    assert answers[1] == {"ok": "pong"}


@pytest.mark.parametrize("ask", [Ask(1, "nosuch", b""), Ask(1, "conf", b"", ("maybe",))])
async def test_a_command_that_cannot_be_meant_is_one_line_of_log(
    panel: Panel, caplog: pytest.LogCaptureFixture, ask: Ask
) -> None:
    panel.commands.asked([ask])

    (record,) = caplog.records
    assert ask.command in record.getMessage()
    assert record.exc_info is None


async def test_a_command_of_the_app_is_answered_by_its_process(panel: Panel) -> None:
    panel.commands.asked([Ask(9, "double", b'{"n": 2}')])
    panel.theirs.close()
    async with asyncio.timeout(PATIENCE_S):
        await panel.link.heard.wait()

    (answer,) = panel.link.said
    assert isinstance(answer, Answer)
    assert answer.id == 9
    assert "ended" in json.loads(answer.body)["error"]


def test_each_built_in_command_is_answered_by_somebody() -> None:
    brokers = {"active_queues", "clock", "reserved", "revoked", "scheduled"}
    orders = {"revoke", "revoke_by_stamped_headers", "terminate"}

    assert {*control.names()} >= BUILT_IN.keys() - brokers - orders
