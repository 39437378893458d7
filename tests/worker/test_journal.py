"""What a worker counts and tells."""

import json

from qbroker.app import App
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message, Result
from qbroker_worker.journal import Journal, plain
from qbroker_worker.values import (
    FAILURE,
    IGNORED,
    REJECTED,
    RETRY,
    REVOKED,
    SUCCESS,
    WORKER_LOST,
    Aside,
    Delivery,
    Event,
    Finished,
)

NOW_MS = 1_000_000
APP = App("journal", set_as_current=False)


def delivery(id_: str = "1", task: str = "add", **fields: Value) -> Delivery:
    message = Message(
        id=id_, task=task, content_type="application/json", body=b"[[2, 2], {}, {}]", **fields
    )
    return Delivery(id_, 1, False, task, "celery", False, message.SerializeToString())


def ended(
    one: Delivery, outcome: int = SUCCESS, result: Result | None = None, *, requeue: bool = False
) -> Finished:
    raw = result.SerializeToString() if result is not None else b""
    return Finished(one, outcome, raw, requeue, 0.5, 0, "")


class Told:
    """A journal, and what left it."""

    def __init__(self, *, tasks: bool = True, silent: frozenset[str] = frozenset()) -> None:
        self.journal = Journal(
            name="a@host",
            pid=7,
            version="1",
            sends_task_events=tasks,
            silent_tasks=silent,
            now_ms=lambda: NOW_MS,
            load=lambda: (1.0, 2.0, 3.0),
        )
        self.events: list[dict[str, Value]] = []
        self.journal.say = self._hear

    def _hear(self, aside: Aside) -> None:
        assert isinstance(aside, Event)
        fields = json.loads(aside.body)
        assert fields["type"] == aside.type
        self.events.append(fields)

    def of(self, *types: str) -> list[dict[str, Value]]:
        return [event for event in self.events if event["type"] in types]


async def wanted(**options: Value) -> Told:
    told = Told(**options)
    told.journal.want(True)
    told.events.clear()
    return told


async def test_nothing_is_told_while_nobody_listens() -> None:
    told = Told()
    one = delivery()

    told.journal.received([one])
    told.journal.started(one, 8)
    told.journal.finished([ended(one)])
    told.journal.heartbeat()
    told.journal.leaving()

    assert told.events == []


async def test_the_worker_tells_that_it_is_there_that_it_lives_and_that_it_goes() -> None:
    told = Told()

    told.journal.want(True)
    told.journal.want(True)
    told.journal.leaving()
    told.journal.unlinked()

    assert [event["type"] for event in told.events] == [
        "worker-online",
        "worker-heartbeat",
        "worker-heartbeat",
        "worker-offline",
    ]
    beat = told.events[1]
    assert {name: beat[name] for name in ("hostname", "pid", "freq", "sw_ident", "sw_ver")} == {
        "hostname": "a@host",
        "pid": 7,
        "freq": 2.0,
        "sw_ident": "py-qbroker",
        "sw_ver": "1",
    }
    assert (beat["active"], beat["processed"], beat["loadavg"]) == (0, 0, [1.0, 2.0, 3.0])
    assert beat["timestamp"] == NOW_MS / 1000


async def test_a_worker_comes_online_with_its_link_and_not_with_who_listens() -> None:
    told = Told()

    told.journal.want(False)
    told.journal.want(True)
    told.journal.unlinked()
    told.journal.want(True)
    told.journal.unlinked()

    assert [event["type"] for event in told.events] == [
        "worker-heartbeat",
        "worker-online",
        "worker-heartbeat",
    ]


async def test_a_task_is_told_of_from_its_arrival_to_its_end() -> None:
    told = await wanted()
    one = delivery(root_id="root", parent_id="parent", retries=1, eta_ms=1, expires_ms=2)

    told.journal.received([one])
    told.journal.started(one, 8)
    told.journal.finished(
        [ended(one, result=Result(state="SUCCESS", content_type="application/json", body=b"4"))]
    )
    told.journal.want(False)

    received, started, succeeded = told.events
    assert {name: received[name] for name in ("type", "uuid", "name", "args", "kwargs")} == {
        "type": "task-received",
        "uuid": "1",
        "name": "add",
        "args": "(2, 2)",
        "kwargs": "{}",
    }
    assert (received["root_id"], received["parent_id"], received["retries"]) == (
        "root",
        "parent",
        1,
    )
    assert received["eta"] == "1970-01-01T00:00:00.001000+00:00"
    assert received["expires"] == "1970-01-01T00:00:00.002000+00:00"
    assert (started["type"], started["uuid"]) == ("task-started", "1")
    assert (succeeded["type"], succeeded["result"], succeeded["runtime"]) == (
        "task-succeeded",
        "4",
        0.5,
    )


async def test_the_start_of_a_short_task_is_told_when_it_has_ended() -> None:
    told = await wanted()

    told.journal.finished([ended(delivery())])
    told.journal.want(False)

    started, succeeded = told.events
    assert (started["type"], started["timestamp"]) == ("task-started", NOW_MS / 1000 - 0.5)
    assert (succeeded["type"], succeeded["timestamp"]) == ("task-succeeded", NOW_MS / 1000)


async def test_each_end_has_its_event() -> None:
    told = await wanted()
    failure = Result(
        state="FAILURE",
        content_type="application/json",
        body=json.dumps(
            {"exc_type": "ValueError", "exc_message": ["x"], "exc_module": "builtins"}
        ).encode(),
        traceback="Traceback …",
    )
    for outcome, result in (
        (FAILURE, failure),
        (RETRY, failure),
        (WORKER_LOST, failure),
        (REJECTED, None),
        (REVOKED, None),
        (IGNORED, None),
    ):
        told.journal.finished([ended(delivery(), outcome, result, requeue=True)])
    told.journal.revoked(delivery())
    told.journal.want(False)

    ends = [event for event in told.events if event["type"] != "task-started"]
    assert [event["type"] for event in ends] == [
        "task-failed",
        "task-retried",
        "task-failed",
        "task-rejected",
        "task-revoked",
        "task-revoked",
    ]
    assert ends[0]["exception"] == "ValueError('x')"
    assert ends[0]["traceback"] == "Traceback …"
    assert ends[3]["requeue"] is True
    assert (ends[4]["terminated"], ends[5]["terminated"]) == (True, False)


async def test_a_task_may_keep_silent_and_so_may_all() -> None:
    told = await wanted(silent=frozenset({"add"}))
    quiet = await wanted(tasks=False)
    for journal in (told.journal, quiet.journal):
        journal.received([delivery()])
        journal.finished([ended(delivery())])
        journal.want(False)

    assert told.events == quiet.events == []


async def test_what_runs_and_what_ended_is_counted_whoever_listens() -> None:
    journal = Told().journal
    first, second, third = delivery("1"), delivery("2", "mul"), delivery("3")
    for one in (first, second, third):
        journal.started(one, 8)

    journal.finished([ended(first), ended(delivery("4"))])
    journal.lost([third])

    assert list(journal.running) == ["2"]
    assert journal.running["2"].since_ms == NOW_MS
    assert journal.totals == {"add": 2}
    assert journal.ended_count == 2


def test_an_answer_that_is_no_json_is_shown_as_text() -> None:
    assert json.loads(plain({"ok": {1}})) == {"ok": "{1}"}
