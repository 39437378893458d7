"""What is known from events, in any order."""

import itertools
import pickle
import random

import pytest

from qbroker import states
from qbroker.events import Event
from qbroker.events.state import Bounded, State, Task, Worker, heartbeat_expires
from qbroker.serialization import Value

FAR = 2**33
"""A time at which nothing has expired."""


class Play:
    """A state, and events that are told to it one after another."""

    def __init__(self, **options: Value) -> None:
        self.state = State(**options)
        self._numbers = itertools.count(1)

    def tell(self, type_: str, hostname: str = "a@host", **fields: Value) -> Value:
        number = fields.pop("clock", None) or next(self._numbers)
        at = fields.pop("timestamp", FAR + number)
        event = Event(type_, hostname=hostname, clock=number, timestamp=at, **fields)
        return self.state.event(event | {"local_received": at})

    def task(self, uuid: str, *subjects: str, **fields: Value) -> Task:
        for subject in subjects:
            self.tell(f"task-{subject}", uuid=uuid, **fields)
        return self.state.tasks[uuid]


def test_a_worker_is_alive_from_its_first_word_to_its_last() -> None:
    play = Play()

    (worker, is_new), subject = play.tell("worker-online", pid=7, sw_ident="py-qbroker")
    alive = list(play.state.alive_workers()), worker.status_string
    (same, is_new_again), _ = play.tell("worker-heartbeat", active=3)
    play.tell("worker-offline")

    assert (is_new, is_new_again, subject) == (True, False, "online")
    assert alive == ([worker], "ONLINE")
    assert (same.pid, same.active, same.id) == (7, 3, "a@host.7")
    assert list(play.state.alive_workers()) == []
    assert worker.status_string == "OFFLINE"
    assert play.state.event_count == 3


def test_a_worker_that_is_silent_is_not_alive() -> None:
    play = Play()

    play.tell("worker-heartbeat", timestamp=1.0)

    assert not play.state.workers["a@host"].alive
    assert heartbeat_expires(10, freq=5) == 20.0


def test_few_heartbeats_are_kept_in_order() -> None:
    worker = Worker("a@host")
    for at in (5, 3, 4, 9, 8, 7):
        worker.event("heartbeat", at, at)
    worker.event("heartbeat", None, None)

    assert worker.heartbeats == sorted(worker.heartbeats)
    assert len(worker.heartbeats) == 4


def test_clocks_that_differ_are_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker("drifting@host")
    for _ in range(3):
        worker.event("heartbeat", 100, 10)

    assert caplog.text.count("Substantial drift from drifting@host") == 1


def test_who_joins_and_leaves_is_told() -> None:
    joined: list[Worker] = []
    left: list[Worker] = []
    play = Play(on_node_join=joined.append, on_node_leave=left.append)

    for type_ in ("worker-online", "worker-heartbeat", "worker-offline", "worker-offline"):
        play.tell(type_)

    assert [worker.hostname for worker in joined] == ["a@host"]
    assert [worker.hostname for worker in left] == ["a@host", "a@host"]
    assert "a@host" not in play.state.workers


def test_a_task_goes_through_its_states_and_keeps_what_was_said() -> None:
    play = Play()
    play.tell("task-sent", "me@here", uuid="1", name="add", args="(2, 2)", queue="mail")
    seen = [play.state.tasks["1"].origin]
    steps: list[tuple[str, dict[str, Value]]] = [
        ("received", {"name": "add", "args": "(2, 2)", "retries": 0}),
        ("started", {}),
        ("succeeded", {"result": "4", "runtime": 0.5}),
    ]
    for subject, fields in steps:
        seen.append(play.task("1", subject, **fields).state)
    task = play.state.tasks["1"]

    assert seen == ["me@here", states.RECEIVED, states.STARTED, states.SUCCESS]
    assert (task.name, task.args, task.result, task.runtime) == ("add", "(2, 2)", "4", 0.5)
    assert (task.client, task.worker.hostname, task.id) == ("me@here", "a@host", "1")
    assert task.ready
    assert task.succeeded > task.started > task.received > task.sent
    assert play.state.task_count == 1
    assert task.info(["args"], ["runtime"]) == {"args": "(2, 2)", "runtime": 0.5}
    assert task.info()["result"] == "4"


@pytest.mark.parametrize("seed", range(20))
def test_the_order_in_which_events_are_heard_does_not_matter(seed: int) -> None:
    play = Play()
    events: list[tuple[str, dict[str, Value]]] = [
        ("task-received", {"name": "add", "args": "()", "clock": 1}),
        ("task-started", {"clock": 2}),
        ("task-succeeded", {"result": "4", "clock": 3}),
    ]
    random.Random(seed).shuffle(events)

    for type_, fields in events:
        play.tell(type_, uuid="1", **fields)

    task = play.state.tasks["1"]
    assert (task.state, task.name, task.result) == (states.SUCCESS, "add", "4")


def test_a_task_that_is_tried_again_goes_back() -> None:
    play = Play()

    tried = play.task("1", "received", "started", "retried").state
    again = play.task("1", "received", "started").state
    custom = play.task("2", "received", "progress").state

    assert (tried, again, custom) == (states.RETRY, states.STARTED, "PROGRESS")


@pytest.mark.parametrize("order", [("child", "parent"), ("parent", "child")])
def test_a_task_knows_its_relations_whoever_is_heard_of_first(order: tuple[str, str]) -> None:
    play = Play()
    fields: dict[str, dict[str, Value]] = {
        "parent": {},
        "child": {"parent_id": "parent", "root_id": "parent"},
    }

    for uuid in order:
        play.task(uuid, "received", name=uuid, **fields[uuid])

    parent, child = play.state.tasks["parent"], play.state.tasks["child"]
    assert set(parent.children) == {child}
    assert child.parent is child.root is parent
    assert parent.parent is None
    assert child.as_dict()["parent"] == child.as_dict()["root"] == "parent"
    assert parent.as_dict()["children"] == ["child"]


def test_tasks_are_found_by_time_by_type_and_by_worker() -> None:
    play = Play()
    for number in range(6):
        fields = {"name": f"t{number % 2}", "hostname": f"w{number % 3}"}
        play.task(str(number), "received", **fields)
    play.task("0", "started", hostname="w0")
    state = play.state

    def ids(found: Value) -> list[str]:
        return [uuid for uuid, _ in found]

    assert ids(state.tasks_by_time()) == ["0", "5", "4", "3", "2", "1"]
    assert ids(state.tasks_by_timestamp(reverse=False)) == ["0", "1", "2", "3", "4", "5"]
    assert ids(state.tasks_by_time(limit=2)) == ["0", "5"]
    assert ids(state.tasks_by_type("t1")) == ["5", "3", "1"]
    assert ids(state.tasks_by_type("t1", limit=1)) == ["5"]
    assert ids(state.tasks_by_worker("w1")) == ["4", "1"]
    assert {task.uuid for task in state.tasks_by_type["t0"]} == {"0", "2", "4"}
    assert {task.uuid for task in state.tasks_by_worker["w2"]} == {"2", "5"}
    assert state.task_types() == ["t0", "t1"]
    assert ids(state.itertasks(limit=2)) == ["0", "1"]


def test_events_that_are_numbered_lower_stand_earlier() -> None:
    play = Play()
    play.task("late", "received", clock=9)
    play.task("early", "received", clock=5)

    assert [uuid for uuid, _ in play.state.tasks_by_time()] == ["late", "early"]


def test_no_more_is_kept_than_was_asked_for() -> None:
    play = Play(max_tasks_in_memory=3, max_workers_in_memory=2)
    for number in range(20):
        play.task(str(number), "received", name="t", hostname=f"w{number}", parent_id=f"p{number}")
    state = play.state

    assert list(state.tasks) == ["17", "18", "19"]
    assert list(state.workers) == ["w18", "w19"]
    assert len(state._taskheap) <= 12
    assert len(state._tasks_to_resolve) <= 3
    assert [uuid for uuid, _ in state.tasks_by_time()] == ["19", "18", "17"]


def test_what_has_ended_or_all_is_forgotten() -> None:
    play = Play()
    play.task("ended", "received", "succeeded")
    play.task("runs", "received", "started")
    state = play.state

    state.clear_tasks()
    kept = list(state.tasks)
    state.clear_tasks(ready=False)
    none = list(state.tasks)
    state.clear(ready=False)

    assert (kept, none) == (["runs"], [])
    assert (state.event_count, state.task_count, len(state.workers)) == (0, 0, 0)


def test_nothing_changes_while_somebody_looks() -> None:
    play = Play()
    play.task("1", "received", "succeeded")
    state = play.state

    seen = state.freeze_while(lambda extra: (state.event_count, extra), 5)
    state.freeze_while(lambda: None, clear_after=True)

    assert seen == (2, 5)
    assert state.event_count == 0


def test_everybody_else_may_hear_too() -> None:
    heard: list[str] = []
    play = Play(callback=lambda _, event: heard.append(event["type"]))
    play.state.handlers["custom"] = lambda subject, event: (subject, event["hostname"])

    found = play.tell("custom-my-event")
    nothing = play.tell("unknown-event")
    unfinished = play.state.event({"type": "worker-online"})

    assert found == (("my-event", "a@host"), "my-event")
    assert nothing is unfinished is None
    assert heard == ["custom-my-event", "unknown-event", "worker-online"]


def test_workers_and_tasks_may_be_made_beforehand() -> None:
    state = State()

    made = state.get_or_create_worker("a", pid=1), state.get_or_create_task("1")
    found = state.get_or_create_worker("a", pid=2), state.get_or_create_task("1")

    assert [is_new for _, is_new in made] == [True, True]
    assert [is_new for _, is_new in found] == [False, False]
    assert state.workers["a"].pid == 2


def test_a_state_can_be_pickled_with_all_it_knows() -> None:
    play = Play(max_tasks_in_memory=5)
    play.task("1", "received", "succeeded", name="add")
    play.task("2", "received", name="add", parent_id="1", root_id="1")

    again = pickle.loads(pickle.dumps(play.state))  # noqa: S301 - made a moment ago

    assert again.tasks["1"].state == states.SUCCESS
    assert again.tasks.limit == 5
    assert {task.uuid for task in again.tasks_by_type["add"]} == {"1", "2"}
    assert [uuid for uuid, _ in again.tasks_by_worker("a@host")] == ["2", "1"]
    assert again.workers["a@host"] == play.state.workers["a@host"]


def test_things_are_equal_by_their_names_and_show_themselves() -> None:
    assert Worker("a") == Worker("a", pid=1)
    assert Worker("a") != Worker("b")
    assert Task("1") == Task("1", name="x")
    assert Task("1") != "1"
    assert Worker("a") != "a"
    assert len({Worker("a"), Worker("a"), Task("1"), Task("1")}) == 2
    assert repr(State()) == "<State: events=0 tasks=0>"
    assert repr(Worker("a")) == "<Worker: a (OFFLINE clock:0)"
    assert repr(Task("1", name="add", clock=2)) == "<Task: add(1) PENDING clock:2>"


def test_a_bounded_dict_without_a_bound_keeps_all() -> None:
    bounded: Bounded[int, int] = Bounded()
    for number in range(100):
        bounded[number] = number

    assert len(bounded) == 100
