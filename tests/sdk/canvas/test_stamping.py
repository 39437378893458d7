"""Stamps on canvases."""

import pytest

from qbroker import App, chain, chord, group
from qbroker.canvas import StampingVisitor
from qbroker.canvas.stamping import merge, stamps_of
from qbroker.serialization import Value


@pytest.fixture
def add() -> Value:
    """A task."""
    app = App("proj", set_as_current=False)

    @app.task(name="proj.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    return add


class Visitor(StampingVisitor):
    """Says where it was."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def on_signature(self, sig: Value, **headers: Value) -> dict[str, Value]:
        self.seen.append(f"task {sig.args}")
        return {"who": "me"}

    def on_group_start(self, group: Value, **headers: Value) -> dict[str, Value]:
        self.seen.append("group")
        return {"in_group": True}

    def on_group_end(self, group: Value, **headers: Value) -> None:
        self.seen.append("end of group")

    def on_chain_start(self, chain: Value, **headers: Value) -> dict[str, Value]:
        self.seen.append("chain")
        return {"in_chain": True, "note": 1, "stamped_headers": ["in_chain"]}

    def on_chain_end(self, chain: Value, **headers: Value) -> None:
        self.seen.append("end of chain")

    def on_chord_body(self, sig: Value, **header: Value) -> dict[str, Value]:
        self.seen.append("body")
        return {"in_body": True}

    def on_callback(self, callback: Value, **header: Value) -> dict[str, Value]:
        self.seen.append("callback")
        return {"is_link": True}

    def on_errback(self, errback: Value, **header: Value) -> dict[str, Value]:
        self.seen.append("errback")
        return {"is_link_error": True}


def stamps(sig: Value) -> dict[str, Value]:
    """A signature's stamps."""
    return {name: sig.options[name] for name in sorted(sig.options["stamped_headers"])}


def test_words_stamp_a_task_and_what_is_linked_to_it(add: Value) -> None:
    sig = add.s(1, 1)
    sig.link(add.s(2))

    sig.stamp(customer=42)

    assert stamps(sig) == {"customer": 42}
    assert stamps(sig.options["link"][0]) == {"customer": 42}


def test_a_stamp_that_is_there_stays_or_becomes_a_list(add: Value) -> None:
    sig = add.s(1, 1)
    sig.stamp(a="first")

    sig.stamp(append_stamps=True, a="second", b=1)

    assert stamps(sig) == {"a": ["second", "first"], "b": 1}


def test_a_visitor_walks_through_all_of_it(add: Value) -> None:
    task = add.s(1, 1)
    task.link(add.s(7))
    task.link_error(add.s(8))
    visitor = Visitor()
    sig = chain(task, group(add.s(2), add.s(3)), add.s(4))

    sig.stamp(visitor)

    assert visitor.seen == [
        "chain",
        "callback",
        "task (7,)",
        "errback",
        "task (8,)",
        "task (1, 1)",
        "group",
        "task (2,)",
        "task (3,)",
        "end of group",
        "body",
        "task (4,)",
        "end of chain",
    ]
    first, follows = sig.tasks
    assert isinstance(follows, chord)
    assert stamps(first) == {"in_chain": True, "who": "me"}
    assert first.options["note"] == 1
    assert stamps(first.options["link"][0]) == {"in_chain": True, "is_link": True, "who": "me"}
    assert stamps(follows.header[0]) == {"in_chain": True, "in_group": True, "who": "me"}
    assert stamps(follows.body)["in_body"] is True


def test_a_body_is_left_alone_without_a_visitor(add: Value) -> None:
    sig = chord([add.s(1, 1)], add.s(2))

    sig.stamp(a=1)

    assert stamps(sig.header[0]) == {"a": 1}
    assert "a" not in sig.body.options


def test_merging() -> None:
    into: dict[str, Value] = {"a": 1, "b": [1], "c": {"x": 1}, "d": None}
    merge(into, {"a": 2, "b": [2], "c": {"y": 2}, "d": 3, "e": 4})
    kept: dict[str, Value] = {"a": 1, "b": [1]}
    merge(kept, {"a": 2, "b": [2]}, appends=False)

    assert into == {"a": [1, 2], "b": [1, 2], "c": {"x": 1, "y": 2}, "d": [3], "e": 4}
    assert kept == {"a": 1, "b": [1, 2]}
    assert stamps_of({"a": 1}, {"b": 2}, {"c": 3, "stamped_headers": ["c"]}, appends=False) == {
        "a": 1,
        "b": 2,
        "c": 3,
        "stamped_headers": ["a", "b", "c"],
    }
