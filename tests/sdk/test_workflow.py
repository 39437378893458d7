"""What a canvas is compiled to, run by an interpreter that knows only the wire, beside plain evaluation and eager mode."""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from qbroker import App, Signature, chain, chord, group, states
from qbroker.app.trace import build_runner
from qbroker.result import AsyncResult, GroupResult
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from tests.support.interpreter import Interpreter

Sig = Signature[Value]


class Collecting:
    """Stands for the client: keeps what is published."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def publish(self, messages: Sequence[bytes]) -> list[Value]:
        """Keep them; nothing is refused."""
        self.published += messages
        return []


class Bench:
    """An app whose messages stay here, with tasks that tell what they were called with."""

    def __init__(self, seed: int = 0, **options: Value) -> None:
        self.client = Collecting()
        self.app = App("bench", set_as_current=False, backend="qbroker://", **options)
        self.app.client = lambda url=None: self.client  # type: ignore[method-assign,assignment,return-value] # no broker
        self.log: list[Value] = []
        self.errors: list[Value] = []
        self.mark = self.app.task(name="bench.mark", typing=False)(self._mark)
        self.fail = self.app.task(name="bench.fail", typing=False)(self._fail)
        self.told_id = self.app.task(name="bench.told_id")(
            lambda task_id: self.errors.append(task_id)
        )
        self.told = self.app.task(name="bench.told")(self._told)
        self.runner = build_runner(self.app, hostname="bench")
        self.interpreter = Interpreter(self.runner, random.Random(seed))

    def _mark(self, *args: Value) -> list[Value]:
        self.log.append(list(args))
        return list(args)

    def _fail(self, *args: Value) -> None:
        raise ValueError(args[-1] if args else "nothing")

    def _told(self, request: Value, exc: BaseException, traceback: str | None) -> None:
        self.errors.append((request.id, type(exc).__name__, str(exc)))

    def go(self, sig: Sig, *args: Value, **options: Value) -> Value:
        """Send it, run all of it, and answer its result."""
        result = sig.apply_async(args, **options)
        for raw in self.client.published:
            self.interpreter.publish(raw)
        self.interpreter.run()
        return result

    def value(self, result: Value) -> Value:
        """The value that a client gets."""
        if isinstance(result, GroupResult):
            return [self.value(one) for one in result.results]
        stored = self.interpreter.ends[result.id].stored()
        if stored.state in states.PROPAGATE_STATES:
            raise stored.result
        return stored.result

    def state(self, result: AsyncResult[Value]) -> str:
        """How the task of a result ended."""
        return self.interpreter.ends[result.id].state

    def messages(self) -> list[Message]:
        """All messages that were published in workflows."""
        return [
            Message.FromString(raw)
            for one in self.client.published
            for raw in Message.FromString(one).workflow.messages
        ]


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- any canvas does what plain Python does --------------------------------------------------------


@dataclass
class Node:
    """A canvas to be: built as a signature, or evaluated right here."""

    kind: str
    tag: str = ""
    is_immutable: bool = False
    parts: "list[Node]" = field(default_factory=list)
    body: "Node | None" = None
    links: "list[Node]" = field(default_factory=list)

    def build(self, bench: Bench) -> Sig:
        """The signature."""
        parts = [part.build(bench) for part in self.parts]
        sig: Sig
        if self.kind == "task":
            sig = bench.mark.si(self.tag) if self.is_immutable else bench.mark.s(self.tag)
            for link in self.links:
                sig.link(link.build(bench))
        elif self.kind == "chain":
            sig = chain(*parts) if len(parts) != 1 else chain(parts)
        elif self.kind == "piped":
            sig = parts[0]
            for part in parts[1:]:
                sig = sig | part
        elif self.kind == "group":
            sig = group(parts)
        else:
            assert self.body is not None
            sig = chord(parts, self.body.build(bench))
        return sig

    def evaluate(self, given: tuple[Value, ...], log: list[Value]) -> Value:
        """The value, and what its tasks are called with."""
        if self.kind == "task":
            value = [*(() if self.is_immutable else given), self.tag]
            log.append(value)
            for link in self.links:
                link.evaluate((value,), log)
            return value
        if self.kind == "group":
            return [one.evaluate(given, log) for one in self.members()]
        if self.kind == "chord":
            assert self.body is not None
            return self.body.evaluate(([one.evaluate(given, log) for one in self.members()],), log)
        found: Value = None
        for part in self.steps():
            found = part.evaluate(given, log)
            given = (found,)
        return found

    def steps(self) -> "list[Node]":
        """What follows each other in a chain."""
        parts = [part for part in self.parts if not part.is_nothing()]
        first = parts[0] if self.kind == "piped" else parts[0].single()
        # `group | body` is a chord, and that takes its body as it is.
        taken = 2 if first.as_group() is not None else 1
        return [first, *parts[1:taken], *(part.single() for part in parts[taken:])]

    def single(self) -> "Node":
        """A group of one is that one, inside a chain."""
        node = self
        while node.kind == "group" and len(node.parts) == 1:
            node = node.parts[0]
        return node

    def as_group(self) -> "Node | None":
        """The group that its signature is, if it is one."""
        if self.kind == "chain":
            steps = [] if self.is_nothing() else self.steps()
            return steps[0].as_group() if len(steps) == 1 else None
        return self if self.kind == "group" else None

    def members(self) -> "list[Node]":
        """The tasks of a group, those of groups in it included, and nothing for what is empty."""
        found: list[Node] = []
        for part in self.parts:
            inner = part.as_group()
            if inner is not None:
                found += inner.members()
            elif not part.is_nothing():
                found.append(part)
        return found

    def walk(self) -> "Iterator[Node]":
        """It and all that is in it."""
        yield self
        for inner in (*self.parts, *self.links, *([self.body] if self.body else [])):
            yield from inner.walk()

    def is_nothing(self) -> bool:
        """Whether no task is in it."""
        return self.kind in ("chain", "group", "piped") and all(
            one.is_nothing() for one in self.parts
        )


plain_tasks = st.builds(lambda is_immutable: Node("task", is_immutable=is_immutable), st.booleans())


def _larger(smaller: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    several = st.lists(smaller, max_size=3)
    some = st.lists(smaller, min_size=1, max_size=3)
    things = smaller.filter(lambda node: not node.is_nothing())
    some_things = st.lists(things, min_size=2, max_size=3)
    return st.one_of(
        st.builds(lambda parts: Node("chain", parts=parts), some),
        st.builds(lambda parts: Node("group", parts=parts), several),
        st.builds(lambda parts, body: Node("chord", parts=parts, body=body), several, smaller),
        st.builds(lambda links: Node("task", links=links), st.lists(smaller, max_size=2)),
        st.builds(lambda parts: Node("piped", parts=parts), some_things),
    )


def _numbered(node: Node) -> Node:
    """The canvas with a tag of its own for each task, since an equal callback is the same one."""
    for number, one in enumerate(node.walk()):
        one.tag = str(number)
    return node


def _has_body(node: Node) -> bool:
    return all(one.body is None or not one.body.is_nothing() for one in node.walk())


canvases = (
    st.recursive(plain_tasks, _larger, max_leaves=12)
    .filter(lambda node: not node.is_nothing() and _has_body(node))
    .map(_numbered)
)


@settings(max_examples=300, deadline=None)
@given(node=canvases, seed=st.integers(0, 1 << 16))
def test_a_canvas_comes_to_what_plain_evaluation_comes_to(node: Node, seed: int) -> None:
    bench = Bench(seed)
    log: list[Value] = []
    wanted = node.evaluate((), log)

    sig = node.build(bench)
    if isinstance(sig, group):
        frozen = sig.clone().freeze()
        if len(frozen) == 1 and isinstance(frozen[0], GroupResult):
            # Alone, a chain that ends in a group is that group, if it is all there is.
            wanted = wanted[0]

    result = bench.go(node.build(bench))

    assert bench.value(result) == wanted
    assert Counter(map(repr, bench.log)) == Counter(map(repr, log))


@settings(max_examples=150, deadline=None)
@given(node=canvases)
def test_eager_mode_comes_to_the_same(node: Node) -> None:
    bench = Bench()
    log: list[Value] = []
    wanted = node.evaluate((), log)

    result = node.build(bench).apply()

    assert result.get() == wanted
    assert Counter(map(repr, bench.log)) == Counter(map(repr, log))
