"""Revoking, purging and asking, at the real broker."""

import datetime as dt
import signal
from collections.abc import Callable

import pytest

from qbroker import App
from qbroker.app.control import Control, Inspect, Revoked, flatten_reply
from qbroker.exceptions import (
    Conflict,
    DuplicateNodenameWarning,
    MalformedAnswer,
    NotFound,
    RequestRefused,
    TaskRevokedError,
)
from qbroker.result import Explanation
from qbroker.serialization import Value
from qbroker_proto.v1.control_pb2 import BroadcastReply, HeldMessage
from tests.sdk.answering import Silence
from tests.sdk.conftest import Hire
from tests.sdk.real_broker import RealBroker, ToyWorker


def test_a_task_that_waits_is_revoked_without_any_worker(real_app: App) -> None:
    result = real_app.send_task("t")

    result.revoke()

    assert (result.state, result.stage) == ("REVOKED", "done")
    with pytest.raises(TaskRevokedError, match="revoked"):
        result.get(timeout=5)


def test_a_scheduled_task_is_revoked_too(real_app: App) -> None:
    result = real_app.send_task("t", countdown=3600)
    stage = result.stage

    revoked = real_app.control.revoke(result.id)

    assert (stage, revoked) == ("scheduled", Revoked((result.id,), (), ()))
    assert isinstance(result.get(timeout=5, propagate=False), TaskRevokedError)


def test_an_id_may_be_revoked_before_it_is_published(
    real_app: App, real_broker: RealBroker
) -> None:
    ran: list[str] = []
    real_app.task(name="t")(ran.append)
    real_app.control.revoke(["early", "other"])

    result = real_app.send_task("t", ("early",), task_id="early")
    _ = real_app.send_task("t", ("later",), task_id="later")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()

    assert ran == ["later"]
    assert result.state == "REVOKED"


@pytest.mark.parametrize("name", ["TERM", "SIGTERM", signal.SIGTERM])
def test_a_worker_is_told_to_end_a_task_that_runs(
    real_app: App, real_broker: RealBroker, name: Value
) -> None:
    real_app.task(name="t")(lambda: None)
    result = real_app.send_task("t")
    worker = ToyWorker(real_app, real_broker.url)
    delivery = worker.take()

    revoked = real_app.control.terminate(result.id, signal=name)
    worker.settle(delivery, outcome=6)
    worker.leave()

    assert revoked == Revoked((), (result.id,), ())
    assert [(one.id, one.terminate, one.signal) for one in worker.cancels] == [
        (result.id, True, "SIGTERM")
    ]
    assert result.state == "REVOKED"
    assert real_app.control.revoke(result.id) == Revoked((), (), (result.id,))


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"customer": 42}, {"a", "b"}),
        ({"customer": ["42", "43"]}, {"a", "b", "c"}),
        ({"customer": 43, "day": "mo"}, {"a", "c"}),
        (["day=mo"], {"a"}),
        ("day=mo", {"a"}),
        ({"customer": 4}, set()),
    ],
)
def test_tasks_are_revoked_by_any_of_their_stamps(
    real_app: App, headers: Value, expected: set[str]
) -> None:
    for task_id, customer, day in (("a", 42, "mo"), ("b", 42, "tu"), ("c", 43, "tu")):
        _ = real_app.send_task("t", task_id=task_id, stamped_headers=["customer"], customer=customer,
                           labels={"day": day})  # fmt: skip

    revoked = real_app.control.revoke_by_stamped_headers(headers)

    assert set(revoked.ended) == expected
    states = {one: real_app.AsyncResult(one).state for one in "abc"}
    assert {one for one, state in states.items() if state == "REVOKED"} == expected


def test_a_revoke_by_stamps_is_for_the_calls_that_are_there(real_app: App) -> None:
    def call() -> Value:
        return real_app.send_task("stamped", stamped_headers=["customer"], customer=42)

    earlier = call()
    real_app.control.revoke_by_stamped_headers({"customer": 42})
    later = call()

    assert (earlier.state, later.state) == ("REVOKED", "PENDING")


def test_a_result_revokes_by_stamps_as_well(real_app: App) -> None:
    result = real_app.send_task("t", labels={"day": "mo"})

    result.revoke_by_stamped_headers({"day": "mo"})

    assert result.state == "REVOKED"


def test_what_ran_here_says_it_was_revoked(real_app: App) -> None:
    result = real_app.task(name="t")(lambda: 4).apply()
    explanation = result.explain()

    result.revoke()

    assert str(explanation) == "It ran in the process that called it: SUCCESS."
    with pytest.raises(TaskRevokedError):
        result.get()


def test_a_purge_throws_away_what_waits_in_the_apps_queue(real_app: App) -> None:
    results = [real_app.send_task("t") for _ in range(3)]
    kept = real_app.send_task("t", queue="other")

    assert real_app.control.purge() == 3
    assert real_app.control.discard_all() == 0
    assert {result.state for result in results} == {"REVOKED"}
    assert kept.stage == "queued"


def test_a_purge_empties_all_queues_the_app_takes_from(real_app: App) -> None:
    real_app.conf.task_queues = {"mail": {}, "images": {}, "empty": {}}
    real_app.send_many([("t", (), {}, {"queue": name}) for name in ("mail", "images", "other")])

    assert real_app.control.purge() == 2
    counts = {one.name: one.ready_count for one in real_app.client().list_queues()}
    assert (counts["mail"], counts["images"], counts["other"]) == (0, 0, 1)


def test_hello_is_answered_for_each_other_worker(real_app: App, hire: Hire) -> None:
    hire("a@host", say)
    hire("b@host", say)

    found = real_app.control.inspect(timeout=10).hello("a@host")

    assert found["a@host"] is None
    assert found["b@host"] == {"revoked": [], "clock": 0}


def test_an_election_asks_nobody(real_app: App, hire: Hire) -> None:
    heard: list[Value] = []
    hire("a@host", heard.append)

    real_app.control.election("id", "topic")
    real_app.control.inspect(timeout=10).clock()

    assert heard == []


def test_a_queue_that_never_was_is_empty(real_app: App) -> None:
    assert real_app.control.purge() == 0


def test_every_id_can_be_asked_for(real_app: App, real_broker: RealBroker) -> None:
    client = real_app.client()
    real_app.task(name="t")(lambda: None)
    queued = real_app.send_task("t")
    later = real_app.send_task("t", countdown=600)
    nobody = real_app.AsyncResult("nobody")

    assert queued.explain() == Explanation(
        "queued", "No connected worker consumes from its queue 'celery'."
    )
    client.pause_queue("celery", by="me", why="a test")
    assert "was paused by me" in str(queued.explain())
    assert str(queued.explain()).endswith(": a test.")
    client.resume_queue("celery")
    assert str(later.explain()).startswith("It will be due in ")
    assert (nobody.stage, nobody.state, nobody.explain().stage) == ("unknown", "PENDING", "unknown")
    worker = ToyWorker(real_app, real_broker.url)
    worker.work()
    worker.leave()
    assert (queued.stage, queued.explain().stage) == ("done", "done")


def test_what_the_broker_refuses_is_told_apart(real_app: App) -> None:
    client = real_app.client()
    _ = real_app.send_task("t")

    with pytest.raises(NotFound, match="no queue 'male'"):
        client.list_queues("male")
    with pytest.raises(Conflict, match="holds 1 waiting"):
        client.remove_queue("celery")
    with pytest.raises(RequestRefused, match="nothing to revoke"):
        client.revoke()


# -- workers -------------------------------------------------------------------------------------


def say(command: str, arguments: dict[str, Value], words: list[str]) -> Value:
    """What these workers answer: what they were asked."""
    return {"ok": "pong"} if command == "ping" else [command, arguments, words]


def silent(command: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


def test_answers_are_a_list_of_dicts_and_questions_are_a_dict(real_app: App, hire: Hire) -> None:
    hire("a@host", say)
    hire("b@host", say)
    control = real_app.control

    replies = control.ping(timeout=10)

    assert sorted(replies or (), key=str) == [
        {"a@host": {"ok": "pong"}},
        {"b@host": {"ok": "pong"}},
    ]
    assert control.inspect(timeout=10).ping() == {
        "a@host": {"ok": "pong"},
        "b@host": {"ok": "pong"},
    }
    assert control.inspect("a@host", timeout=10).ping() == {"ok": "pong"}
    assert control.inspect(timeout=10).ping(["b@host"]) == {"b@host": {"ok": "pong"}}
    assert control.inspect(timeout=10, pattern="a@*").ping() == {"a@host": {"ok": "pong"}}
    assert control.inspect(timeout=10, pattern="b@", matcher="pcre").ping() == {
        "b@host": {"ok": "pong"}
    }
    assert len(control.inspect(timeout=10, limit=1).ping()) == 1


def test_without_reply_nobody_waits(real_app: App, hire: Hire) -> None:
    worker = hire("a@host", silent)

    assert real_app.control.broadcast("shutdown") is None
    assert real_app.control.pool_grow(2) is None
    _ = real_app.control.inspect(timeout=0.2).ping()

    assert [one.command for one in worker.asked] == ["shutdown", "pool_grow", "ping"]


def test_nobody_answered_is_none_and_who_did_not_is_known(real_app: App, hire: Hire) -> None:
    hire("a@host", silent)
    hire("b@host", say)

    gathered = real_app.control.gather("ping", timeout=0.3)

    assert (gathered.replies, gathered.missing) == ([{"b@host": {"ok": "pong"}}], ["a@host"])
    assert real_app.control.inspect("a@host", timeout=0.1).ping() is None
    assert real_app.control.inspect("nobody@host").ping() is None


def test_a_callback_hears_each_answer_as_it_comes(real_app: App, hire: Hire) -> None:
    hire("a@host", say)
    heard: list[Value] = []

    real_app.control.inspect(timeout=10, callback=heard.append).ping()

    assert heard == [{"a@host": {"ok": "pong"}}]


def test_two_workers_of_one_name_are_warned_of(real_app: App, real_broker: RealBroker) -> None:
    with pytest.warns(DuplicateNodenameWarning, match="a@host"):
        assert flatten_reply([{"a@host": 1}, {"a@host": 2}]) == {"a@host": 2}


REPLY: dict[str, Value] = {"reply": True, "timeout": 10}

ASKED: list[tuple[Callable[[Inspect], Value], Value]] = [
    (lambda i: i.active(), ["active", {"safe": None}, []]),
    (lambda i: i.registered("x"), ["registered", {"taskinfoitems": ["x"]}, []]),
    (lambda i: i.registered_tasks(), ["registered", {"taskinfoitems": []}, []]),
    (lambda i: i.stats(), ["stats", {}, []]),
    (lambda i: i.query_task("1", "2"), ["query_task", {"ids": ["1", "2"]}, []]),
    (lambda i: i.query_task(["1"]), ["query_task", {"ids": ["1"]}, []]),
    (lambda i: i.conf(), ["conf", {"with_defaults": False}, []]),
    (lambda i: i.report(), ["report", {}, []]),
    (lambda i: i.memsample(), ["memsample", {}, []]),
    (lambda i: i.memdump(3), ["memdump", {"samples": 3}, []]),
    (lambda i: i.objgraph("T"), ["objgraph", {"num": 200, "max_depth": 10, "type": "T"}, []]),
]

TOLD: list[tuple[Callable[[Control], Value], Value]] = [
    (lambda c: c.rate_limit("t", "1/s", **REPLY), ["rate_limit", {"task_name": "t", "rate_limit": "1/s"}, []]),
    (lambda c: c.time_limit("t", 1, 2, **REPLY), ["time_limit", {"task_name": "t", "hard": 2, "soft": 1}, []]),
    (
        lambda c: c.add_consumer("q", options={"x": 1}, **REPLY),
        ["add_consumer", {"queue": "q", "exchange": None, "exchange_type": "direct", "routing_key": None, "x": 1}, []],
    ),
    (lambda c: c.cancel_consumer("q", **REPLY), ["cancel_consumer", {"queue": "q"}, []]),
    (lambda c: c.pool_grow(**REPLY), ["pool_grow", {"n": 1}, []]),
    (lambda c: c.pool_shrink(2, **REPLY), ["pool_shrink", {"n": 2}, []]),
    (lambda c: c.pool_restart(**REPLY), ["pool_restart", {"modules": None, "reload": False, "reloader": None}, []]),
    (lambda c: c.autoscale(3, 1, **REPLY), ["autoscale", {"max": 3, "min": 1}, []]),
    (lambda c: c.enable_events(**REPLY), ["enable_events", {}, []]),
    (lambda c: c.disable_events(**REPLY), ["disable_events", {}, []]),
    (lambda c: c.heartbeat(**REPLY), ["heartbeat", {}, []]),
    (lambda c: c.shutdown(**REPLY), ["shutdown", {}, []]),
    (lambda c: c.broadcast("own", {"a": 1}, b=2, **REPLY), ["own", {"a": 1, "b": 2}, []]),
]  # fmt: skip


def test_each_question_says_what_the_worker_is_to_answer(real_app: App, hire: Hire) -> None:
    hire("a@host", say)
    inspect = real_app.control.inspect(timeout=10)

    assert [ask(inspect) for ask, _ in ASKED] == [{"a@host": wanted} for _, wanted in ASKED]


def test_each_order_says_what_the_worker_is_to_do(real_app: App, hire: Hire) -> None:
    hire("a@host", say)

    found = [tell(real_app.control) for tell, _ in TOLD]

    assert found == [[{"a@host": wanted}] for _, wanted in TOLD]


def test_what_the_broker_knows_has_celerys_shapes(real_app: App, hire: Hire) -> None:
    hire("a@host", silent, prefetch_count=1)
    held = real_app.send_task("proj.add", (2, 2), {"z": 1}, priority=3)
    later = real_app.send_task("proj.add", eta=dt.datetime(2100, 1, 1, tzinfo=dt.UTC))
    real_app.control.revoke("never")
    inspect = real_app.control.inspect("a@host", timeout=10)

    info = {
        "id": held.id,
        "name": "proj.add",
        "args": [2, 2],
        "kwargs": {"z": 1},
        "type": "proj.add",
        "hostname": "a@host",
        "time_start": None,
        "acknowledged": False,
        "delivery_info": {
            "exchange": "",
            "routing_key": "celery",
            "priority": 3,
            "redelivered": False,
        },
        "worker_pid": None,
    }
    assert inspect.reserved() == [info]
    (scheduled,) = inspect.scheduled()
    assert (scheduled["eta"], scheduled["priority"]) == ("2100-01-01T00:00:00+00:00", 0)
    assert scheduled["request"]["id"] == later.id
    assert inspect.revoked() == ["never"]
    assert [queue["name"] for queue in inspect.active_queues()] == ["celery"]
    assert inspect.clock() == {"clock": 0}


def test_a_consumer_may_be_added_with_an_exchange_which_the_broker_then_has(
    real_app: App, hire: Hire
) -> None:
    hire("a@host", say, queues=("photos",))

    real_app.control.add_consumer("photos", "media", "topic", "media.photo.#", **REPLY)
    (queue,) = real_app.control.inspect("a@host", timeout=10).active_queues()

    assert (queue["exchange"]["name"], queue["exchange"]["type"]) == ("media", "topic")
    assert queue["routing_key"] == "media.photo.#"
    (binding,) = real_app.client().list_topology().bindings
    assert (binding.exchange, binding.destination) == ("media", "photos")


def test_orders_about_tasks_are_the_brokers_and_answered_in_each_workers_name(
    real_app: App, hire: Hire
) -> None:
    hire("a@host", say, prefetch_count=1)
    held = real_app.send_task("proj.add", labels={"day": "mo"})
    control = real_app.control

    def told(reply: list[dict[str, Value]] | None) -> Value:
        assert reply is not None
        return reply[0]["a@host"]["ok"]

    assert told(control.revoke("x", **REPLY)) == "tasks {'x'} flagged as revoked"
    assert told(control.terminate("y", **REPLY)) == "terminate: tasks unknown"
    assert told(control.terminate([held.id], **REPLY)) == f"terminate: {held.id}"
    headers = {"day": "tu"}
    assert told(control.revoke_by_stamped_headers(headers, **REPLY)) == (
        "headers {'day': 'tu'} flagged as revoked, but not terminated"
    )
    assert told(control.revoke_by_stamped_headers(["day=tu"], terminate=True, **REPLY)) == (
        "headers {'day': 'tu'} were not terminated"
    )
    assert told(control.revoke_by_stamped_headers(["day=mo"], terminate=True, **REPLY)) == (
        "headers {'day': 'mo'} revoked"
    )
    assert control.broadcast("revoke", {"task_id": "z"}) is None
    assert sorted(control.inspect("a@host", timeout=10).revoked()) == ["x", "y", "z"]


def test_questions_may_be_asked_without_the_apps_own_inspect(real_app: App, hire: Hire) -> None:
    hire("a@host", say)

    assert Inspect(app=real_app, timeout=10).ping() == {"a@host": {"ok": "pong"}}


# -- answers that make no sense ------------------------------------------------------------------


class Saying:
    """A client whose one worker answers every command with these bytes."""

    def __init__(self, body: bytes, **fields: Value) -> None:
        self._reply = BroadcastReply(worker="odd@h", body=body, **fields)

    def broadcast(self, *_: Value, **__: Value) -> list[BroadcastReply]:
        return [self._reply]


QUESTIONS = [
    "active",
    "active_queues",
    "clock",
    "conf",
    "ping",
    "query_task",
    "registered",
    "report",
    "reserved",
    "revoked",
    "scheduled",
    "stats",
]


@pytest.mark.parametrize("command", [*QUESTIONS, "pool_grow", "an app's own"])
@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"<html>"])
def test_an_answer_that_is_not_json_names_the_worker_and_the_command(
    command: str, body: bytes
) -> None:
    control = Control(lambda: Saying(body), lambda: ())  # type: ignore[arg-type,return-value] # enough of a client

    with pytest.raises(
        MalformedAnswer, match=f"worker 'odd@h' answered {command!r}".replace("'", ".")
    ):
        control.broadcast(command, reply=True)


@pytest.mark.parametrize("command", QUESTIONS)
@pytest.mark.parametrize("body", [b"null", b"3", b'"text"'])
def test_an_answer_of_another_shape_names_the_worker_and_the_command(
    command: str, body: bytes
) -> None:
    control = Control(lambda: Saying(body), lambda: ())  # type: ignore[arg-type,return-value] # enough of a client

    with pytest.raises(
        MalformedAnswer, match=r"worker 'odd@h' answered '.*; it must be a JSON list"
    ):
        control.broadcast(command, reply=True)


def test_an_error_is_an_answer_to_every_question() -> None:
    said = Saying(b'{"error": "no"}')
    control = Control(lambda: said, lambda: ())  # type: ignore[arg-type,return-value] # enough of a client

    for command in QUESTIONS:
        assert control.broadcast(command, reply=True) == [{"odd@h": {"error": "no"}}]


def test_messages_that_cannot_be_read_are_an_error_that_names_the_worker() -> None:
    said = Saying(b"", has_messages=True, messages=[HeldMessage(message=b"\xff\xff")])
    control = Control(lambda: said, lambda: ())  # type: ignore[arg-type,return-value] # enough of a client

    with pytest.raises(MalformedAnswer, match="worker 'odd@h' answered 'reserved'"):
        control.broadcast("reserved", reply=True)
