"""What a canvas is compiled to, run by an interpreter that knows only the wire, beside plain evaluation and eager mode."""

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings, strategies as st

from qbroker import App, Signature, chain, chord, group, signals, states
from qbroker.app.trace import build_runner
from qbroker.envelope import decode_child
from qbroker.exceptions import ChordError, ImproperlyConfigured
from qbroker.result import AsyncResult, GroupResult
from qbroker.serialization import Value, json_decode, json_encode
from qbroker_proto.v1.message_pb2 import Message
from tests.support.interpreter import Interpreter

Sig = Signature[Value]
_ADDRESS = re.compile(r"0x[0-9a-f]+")


class Collecting:
    """Stands for the client: keeps what is published."""

    def __init__(self) -> None:
        self.published: list[bytes] = []

    def publish(self, messages: Sequence[bytes]) -> list[Value]:
        """Keep them; nothing is refused."""
        self.published += messages
        return []

    async def apublish(self, messages: Sequence[bytes]) -> list[Value]:
        """Do the same."""
        return self.publish(messages)

    def submit(self, messages: Sequence[bytes]) -> Sequence[bytes]:
        """The same for a pipeline."""
        self.published += messages
        return messages

    def wait(self, ticket: Sequence[bytes]) -> list[Value]:
        """What became of it."""
        return []


class Bench:
    """An app whose messages stay here, with tasks that tell what they were called with."""

    def __init__(self, seed: int = 0, **options: Value) -> None:
        self.client = Collecting()
        self.app = app = App("bench", set_as_current=False, backend="qbroker://", **options)
        app.client = lambda url=None: self.client  # type: ignore[method-assign,assignment,return-value] # no broker
        self.log: list[Value] = []
        self.errors: list[Value] = []

        @app.task(name="bench.mark", shared=False, typing=False)
        def mark(*args: Value) -> list[Value]:
            self.log.append(list(args))
            return list(args)

        @app.task(name="bench.fail", shared=False, typing=False)
        def fail(*args: Value) -> None:
            raise ValueError(args[-1] if args else "nothing")

        @app.task(name="bench.add", shared=False)
        def add(x: Value, y: Value) -> Value:
            return x + y

        @app.task(name="bench.total", shared=False)
        def total(values: Value) -> Value:
            return sum(values)

        @app.task(name="bench.old", shared=False)
        def old(task_id: str) -> None:
            self.errors.append(task_id)

        @app.task(name="bench.new", shared=False)
        def new(request: Value, exc: BaseException, traceback: str | None) -> None:
            self.errors.append((request.id, request.args, type(exc).__name__, str(exc)))

        self.mark, self.fail, self.add, self.total = mark, fail, add, total
        self.old, self.new = old, new
        self.runner = build_runner(app, hostname="bench")
        self.interpreter = Interpreter(self.runner, random.Random(seed))

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
    """Tasks, and nobody who runs them yet."""
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
        if not parts:
            return []
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


@settings(max_examples=100, deadline=None)
@given(node=canvases)
def test_a_canvas_survives_json(node: Node) -> None:
    bench = Bench()
    log: list[Value] = []
    wanted = node.evaluate((), log)
    sig = node.build(bench)

    rebuilt = bench.app.signature(json_decode(json_encode(sig)))
    result = rebuilt.apply()

    # A chain of nothing shows its address.
    assert _ADDRESS.sub("", repr(rebuilt)) == _ADDRESS.sub("", repr(sig))
    assert result.get() == wanted


# -- what a failure does ---------------------------------------------------------------------------


def test_what_follows_a_failure_in_a_chain_fails_with_it_and_one_errback_is_called(
    bench: Bench,
) -> None:
    sig = chain(bench.mark.s(1), bench.fail.si("no"), bench.mark.s(2), bench.mark.s(3))
    sig.link_error(bench.old.s())

    last = bench.go(sig)

    failed = last.parent.parent
    assert [bench.state(one) for one in (last, last.parent, failed, failed.parent)] == [
        "FAILURE",
        "FAILURE",
        "FAILURE",
        "SUCCESS",
    ]
    assert bench.errors == [failed.id]
    with pytest.raises(ValueError, match="no"):
        bench.value(last)
    assert bench.log == [[1]]


def test_members_of_a_group_fail_each_for_itself(bench: Bench) -> None:
    result = bench.go(group(bench.mark.s(1), bench.fail.s("no"), bench.mark.s(2)))

    assert [bench.state(one) for one in result] == ["SUCCESS", "FAILURE", "SUCCESS"]


def test_a_chord_whose_header_fails_is_a_chord_error_and_its_errback_is_called_once(
    bench: Bench,
) -> None:
    header = [bench.fail.s("no"), bench.mark.s(1), bench.fail.s("neither")]
    sig = chord(header, bench.total.s().on_error(bench.new.s()))

    result = bench.go(sig)

    with pytest.raises(
        ChordError, match=r"^Dependency .* raised ValueError\('(no|neither)'\)$"
    ) as caught:
        bench.value(result)
    assert isinstance(caught.value.__cause__, ValueError)
    assert len(bench.errors) == 1
    assert bench.errors[0][0] == result.id
    assert bench.errors[0][2] == "ChordError"
    assert bench.log == [[1]]


def test_each_task_of_a_body_that_is_a_group_fails_with_the_error_of_the_header(
    bench: Bench,
) -> None:
    body = group(bench.total.s(), bench.mark.s())
    body.link_error(bench.old.s())

    result = bench.go(chord([bench.fail.s("no"), bench.mark.s(1)], body))

    for one in result:
        with pytest.raises(ValueError, match="no"):
            bench.value(one)
    assert sorted(bench.errors) == sorted(one.id for one in result)


def test_a_chord_after_a_chord_that_failed_is_not_told(bench: Bench) -> None:
    first = chord(
        [bench.fail.s("no"), bench.mark.s(1)], bench.mark.s().on_error(bench.old.s("first"))
    )
    second = chord([bench.mark.s(), bench.mark.s()], bench.total.s().on_error(bench.old.s()))
    first.body.options["link_error"] = [bench.old.s()]

    result = bench.go(first | second)

    assert bench.errors == [result.parent.parent.id]


def test_a_chord_is_told_when_the_chain_in_its_header_failed(bench: Bench) -> None:
    header = [chain(bench.fail.s("no"), bench.mark.s()), bench.mark.s(1)]

    result = bench.go(chord(header, bench.total.s().on_error(bench.old.s())))

    assert bench.errors == [result.id]


def test_a_chord_that_is_another_ones_body_is_told_once(bench: Bench) -> None:
    inner = chord([bench.mark.s(1), bench.mark.s(2)], bench.total.s())
    sig = chord([bench.fail.s("no"), bench.mark.s(1)], inner)

    result = bench.go(sig, link_error=bench.old.s())

    assert bench.errors == [result.id]


def test_errbacks_reach_the_header_where_the_setting_says_so() -> None:
    bench = Bench(task_allow_error_cb_on_chord_header=True)
    sig = chord([bench.fail.s("no"), bench.mark.s(1)], bench.total.s())
    sig.link_error(bench.mark.si("told"))

    bench.go(sig)

    assert bench.log.count(["told"]) == 2


@pytest.mark.parametrize("is_frozen", [False, True])
@pytest.mark.parametrize(
    ("shape", "values"),
    [
        (lambda b: chord([b.mark.s(1)], group(b.mark.s(2), b.mark.s(3))), [2, 3]),
        (lambda b: group([b.mark.s(1), b.mark.s(0)]) | group(b.mark.s(2), b.mark.s(3)), [2, 3]),
        (
            lambda b: chain(b.mark.s(4), chord([b.mark.s(1)], group(b.mark.s(2), b.mark.s(3)))),
            [2, 3],
        ),
        (lambda b: chain(b.mark.s(4), group(b.mark.s(2), b.mark.s(3))), [2, 3]),
        (
            lambda b: chord(
                [b.mark.s(1)], chord([b.mark.s(0)], group(b.mark.s(2), group(b.mark.s(3))))
            ),
            [2, 3],
        ),
        (
            lambda b: chord(
                [b.mark.s(1)], group(b.mark.s(2), chord([b.mark.s(0)] * 2, b.mark.s(3)))
            ),
            [2, 3],
        ),
    ],
)
def test_a_callback_is_called_with_the_value_of_each_task_that_a_canvas_ends_in(
    shape: Callable[[Bench], Sig], values: list[int], *, is_frozen: bool
) -> None:
    bench = Bench()
    sig, callback = shape(bench), bench.mark.s("heard")
    if is_frozen:
        sig.freeze()
        callback.freeze()

    bench.go(sig, link=callback)

    heard = [called for called in bench.log if called[-1] == "heard"]
    assert sorted(value[-1] for value, _ in heard) == values


def test_an_immutable_callback_of_a_body_that_is_a_group_is_called_once(bench: Bench) -> None:
    sig = chord([bench.mark.s(1)], group(bench.mark.s(2), bench.mark.s(3)))

    bench.go(sig, link=bench.mark.si("heard"))

    assert bench.log.count(["heard"]) == 1


def test_no_callback_is_called_after_a_failure(bench: Bench) -> None:
    sig = bench.fail.s("no")
    sig.link(bench.mark.s())

    bench.go(sig)

    assert bench.log == []


# -- errbacks --------------------------------------------------------------------------------------


def test_an_errback_gets_what_celerys_would(bench: Bench) -> None:
    sig = bench.fail.s(7)
    for errback in (bench.old.s(), bench.new.s(), bench.mark.si("immutable")):
        sig.link_error(errback)

    result = bench.go(sig)

    assert sorted(map(str, bench.errors)) == sorted(
        map(str, [result.id, (result.id, [7], "ValueError", "7")])
    )
    assert bench.log == [["immutable"]]


def test_an_errback_with_arguments_of_its_own_is_old_style_where_one_is_left(bench: Bench) -> None:
    told: list[Value] = []

    @bench.app.task(name="bench.labelled", shared=False)
    def labelled(task_id: str, label: str) -> None:
        told.append((task_id, label))

    result = bench.go(bench.fail.s(1).on_error(labelled.s("label")))

    assert told == [(result.id, "label")]


def test_an_errback_may_be_a_canvas(bench: Bench) -> None:
    sig = bench.fail.s(1)
    sig.link_error(chain(bench.mark.s("a"), bench.mark.s("b")))
    sig.link_error(group(bench.mark.s("c"), bench.mark.s("d")))

    result = bench.go(sig)

    assert [result.id, "a"] in bench.log
    assert [[result.id, "a"], "b"] in bench.log
    assert [result.id, "c"] in bench.log
    assert [result.id, "d"] in bench.log


def test_an_errback_of_an_errback_is_called_when_that_fails(bench: Bench) -> None:
    errback = bench.fail.si("worse").on_error(bench.mark.si("told"))

    bench.go(bench.fail.s(1).on_error(errback))

    assert bench.log == [["told"]]


# -- what a task makes of its place ----------------------------------------------------------------


def _replacing(bench: Bench, make: Callable[[], Value]) -> Value:
    @bench.app.task(name="bench.replacing", shared=False, bind=True, typing=False)
    def replacing(self: Value, *args: Value) -> Value:
        return self.replace(make())

    return replacing


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("task", 3), ("chain", 6), ("group", [3, 7]), ("chord", 10), ("chain of group", [4, 5])],
)
def test_a_replacement_has_id_and_place_of_the_task(
    bench: Bench, kind: str, wanted: Value, *, follow: bool
) -> None:
    add, total = bench.add, bench.total
    makes: dict[str, Callable[[], Value]] = {
        "task": lambda: add.s(1, 2),
        "chain": lambda: add.s(1, 2) | add.s(3),
        "group": lambda: group(add.s(1, 2), add.s(3, 4)),
        "chord": lambda: chord([add.s(1, 2), add.s(3, 4)], total.s()),
        "chain of group": lambda: add.s(1, 2) | group(add.s(1), add.s(2)),
    }
    sig = _replacing(bench, makes[kind]).s()
    if follow:
        sig = sig | bench.mark.s("after")

    result = bench.go(sig)

    replaced = result.parent if follow else result
    assert bench.value(replaced) == wanted
    if follow:
        assert bench.value(result) == [wanted, "after"]


def test_a_replacement_takes_the_place_in_a_chord_and_keeps_its_own_callbacks(bench: Bench) -> None:
    def make() -> Sig:
        sig = chain(bench.add.s(1, 1), bench.add.s(1))
        sig.link(bench.mark.s("own"))
        return sig

    sig = chord([_replacing(bench, make).s(), bench.add.s(2, 2)], bench.total.s())

    assert bench.value(bench.go(sig)) == 7
    assert bench.log == [[3, "own"]]


def test_errbacks_of_a_replaced_task_are_called_once_when_its_replacement_fails(
    bench: Bench,
) -> None:
    make: Callable[[], Sig] = lambda: bench.fail.s("no") | bench.mark.s()  # noqa: E731 - one of several
    result = bench.go(_replacing(bench, make).s().on_error(bench.new.s()))

    assert bench.state(result) == "FAILURE"
    assert len(bench.errors) == 1
    assert bench.errors[0][2:] == ("ValueError", "no")


def test_a_replacement_that_is_replaced_counts(bench: Bench) -> None:
    @bench.app.task(name="bench.nested", shared=False, bind=True)
    def nested(self: Value, left: int) -> Value:
        if left:
            return self.replace(nested.s(left - 1))
        return self.request.replaced_task_nesting

    assert bench.value(bench.go(nested.s(3))) == 3


def test_nothing_cannot_replace_a_task(bench: Bench) -> None:
    result = bench.go(_replacing(bench, chain).s())

    with pytest.raises(ImproperlyConfigured, match="Cannot replace with an empty chain"):
        bench.value(result)


def test_a_task_adds_members_to_its_chord(bench: Bench) -> None:
    @bench.app.task(name="bench.adding", shared=False, bind=True)
    def adding(self: Value) -> int:
        self.add_to_chord(bench.add.s(1, 1))
        self.add_to_chord(group(bench.add.s(1, 2), bench.add.s(3, 4)) | bench.total.s())
        self.add_to_chord(bench.add.s(50, 50), lazy=True).delay()
        return 1000

    result = bench.go(chord([adding.s(), bench.add.s(10, 0)], bench.total.s()))

    assert bench.value(result) == 1000 + 10 + 2 + 10 + 100


def test_who_is_in_no_chord_cannot_add_to_it(bench: Bench) -> None:
    @bench.app.task(name="bench.adding", shared=False, bind=True)
    def adding(self: Value) -> None:
        self.add_to_chord(bench.add.s(1, 1))

    with pytest.raises(ValueError, match="not member of any chord"):
        bench.value(bench.go(adding.s()))


def test_a_retry_gets_what_it_waited_for_again(bench: Bench) -> None:
    @bench.app.task(name="bench.flaky", shared=False, bind=True, max_retries=2)
    def flaky(self: Value, given: Value, own: str) -> Value:
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return [given, own]

    @bench.app.task(name="bench.changing", shared=False, bind=True, max_retries=2)
    def changing(self: Value, given: Value) -> Value:
        if self.request.retries < 1:
            raise self.retry(args=("other",), countdown=0)
        return given

    result = bench.go(bench.mark.s(1) | flaky.s("own") | changing.s())

    assert bench.value(result.parent) == [[1], "own"]
    assert bench.value(result) == "other"


# -- what the messages say -------------------------------------------------------------------------


def test_times_of_what_waits_count_from_when_it_need_not(bench: Bench) -> None:
    waiting = bench.mark.s().set(countdown=2.5, expires=60)
    absolute = bench.mark.s().set(expires="2030-01-01T00:00:00+00:00")

    bench.go(bench.mark.s(1) | waiting | absolute)

    first, second, third = bench.messages()
    assert (first.delay_ms, first.lifetime_ms, first.eta_ms) == (0, 0, 0)
    assert (second.delay_ms, second.lifetime_ms, second.eta_ms, second.expires_ms) == (
        2500,
        60_000,
        0,
        0,
    )
    assert third.lifetime_ms == 0
    assert third.expires_ms == 1_893_456_000_000


def test_options_reach_tasks_as_in_celery(bench: Bench) -> None:
    sig = chord([bench.mark.s(1), bench.mark.s(2).set(priority=1)], bench.mark.s("body"))

    bench.go(sig, queue="q", priority=7, countdown=30)

    body, *header = bench.messages()
    assert (body.queue, body.priority, body.delay_ms, body.eta_ms) == ("q", 7, 0, 0)
    assert [(one.queue, one.priority) for one in header] == [("q", 7), ("q", 7)]
    assert all(one.eta_ms for one in header)


def test_options_of_a_chain_are_its_first_tasks(bench: Bench) -> None:
    bench.go(bench.mark.s(1) | bench.mark.s(2), queue="q")

    assert [one.queue for one in bench.messages()] == ["q", "celery"]


def test_ids_that_were_chosen_are_kept(bench: Bench) -> None:
    sig = chain(bench.mark.s(1), group(bench.mark.s(2), bench.mark.s(3)), bench.mark.s(4))
    frozen = sig.freeze()

    result = bench.go(sig)

    assert result.as_tuple() == frozen.as_tuple()


def test_one_root_and_who_came_before(bench: Bench) -> None:
    @bench.app.task(name="bench.ids", shared=False, bind=True, typing=False)
    def ids(self: Value, *args: Value) -> Value:
        request = self.request
        return [request.id, request.root_id, request.parent_id, request.group, request.group_index]

    result = bench.go(chain(ids.si(), group(ids.si(), ids.si()), ids.si(), ids.si()))

    last, body, header = result, result.parent, result.parent.parent
    first = header.parent
    assert bench.value(first) == [first.id, first.id, None, None, None]
    assert bench.value(header) == [
        [one.id, first.id, first.id, header.id, place] for place, one in enumerate(header)
    ]
    assert bench.value(body)[1:3] == [first.id, header[1].id]
    assert bench.value(last)[1:3] == [first.id, body.id]


def test_children_are_what_follows(bench: Bench) -> None:
    sig = bench.mark.s(1)
    sig.link(bench.mark.s(2))

    result = bench.go(sig | group(bench.mark.s(3), bench.mark.s(4)))

    first = bench.interpreter.ends[result.parent.id].stored().children
    after, link = (decode_child(text) for text in first)
    assert after == (result.id, [one.id for one in result])
    assert link[1] is None


def test_a_task_alone_is_no_workflow(bench: Bench) -> None:
    bench.go(chain([bench.mark.s(1)]))

    assert [Message.FromString(raw).task for raw in bench.client.published] == ["bench.mark"]


def test_a_long_chain_is_as_long_as_it_is(bench: Bench) -> None:
    sizes = []
    for length in (1_000, 10_000):
        bench.client.published.clear()
        _ = chain(bench.mark.si(1) for _ in range(length)).apply_async()
        sizes.append(sum(map(len, bench.client.published)))

    assert sizes[1] < 11 * sizes[0]


def test_a_group_too_large_for_a_message_is_sent_in_several() -> None:
    bench = Bench(task_message_bytes_max=10_000)
    members = [bench.mark.s("x" * 1_000) for _ in range(20)]

    result = bench.go(group(members))

    assert len(bench.client.published) > 1
    assert bench.value(result) == [["x" * 1_000]] * 20


def test_what_cannot_be_meant_is_refused_before_anything_is_sent(bench: Bench) -> None:
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        bench.go(bench.add.s(1) | bench.add.s(2))
    with pytest.raises(ImproperlyConfigured, match="a chord needs a body"):
        bench.go(chord([bench.mark.s(1)]))
    with pytest.raises(TypeError, match="'chord'"):
        bench.go(bench.mark.s(1), chord=bench.mark.s())
    assert bench.client.published == []


# -- other ways to send ----------------------------------------------------------------------------


async def test_a_canvas_is_sent_from_asyncio_too(bench: Bench) -> None:
    chained = await (bench.add.s(1, 1) | bench.add.s(2)).aapply_async()
    linked = await bench.add.aapply_async((1, 1), link=bench.mark.s("linked"))
    nothing = await group().aapply_async()
    for raw in bench.client.published:
        bench.interpreter.publish(raw)
    bench.interpreter.run()

    assert (bench.value(chained), bench.value(linked), bench.value(nothing)) == (4, 2, [])
    assert bench.log == [[2, "linked"]]


def test_canvases_share_a_pipeline_with_single_calls(bench: Bench) -> None:
    sig = bench.add.s(1, 1) | bench.add.s(2)

    with bench.app.pipeline():
        results = [
            sig.delay(),
            bench.add.delay(3, 4),
            chord([bench.add.s(1, 1)], bench.total.s()).delay(),
        ]
    results += bench.app.send_many(
        [sig, bench.add.s(5, 5), bench.mark.s(1).set(link=bench.mark.s(2))]
    )
    for raw in bench.client.published:
        bench.interpreter.publish(raw)
    bench.interpreter.run()

    assert [bench.value(result) for result in results] == [4, 7, 2, 4, 10, [1]]


def test_what_a_task_sends_is_its_child(bench: Bench) -> None:
    @bench.app.task(name="bench.parent", shared=False)
    def parent() -> str:
        return str(group(bench.add.s(1, 1), bench.add.s(2, 2))().id)

    result = bench.go(parent.s())

    (child,) = bench.interpreter.ends[result.id].stored().children
    group_id, members = decode_child(child)
    assert group_id == bench.value(result)
    assert len(members or ()) == 2


# -- what differs from Celery, as docs/from-celery.md says -------------------------------------------


def test_publish_signals_of_a_whole_chain_are_sent_at_the_call(bench: Bench) -> None:
    heard: list[str] = []

    def hear(sender: str, **_: Value) -> None:
        heard.append(sender)

    signals.before_task_publish.connect(hear)
    signals.after_task_publish.connect(hear)
    try:
        _ = (bench.add.s(1, 1) | bench.mark.s() | bench.mark.s()).apply_async()
    finally:
        signals.before_task_publish.disconnect(hear)
        signals.after_task_publish.disconnect(hear)

    assert sorted(heard) == ["bench.add"] * 2 + ["bench.mark"] * 4


def test_a_generator_as_a_header_is_run_to_its_end_before_anything_is_sent(bench: Bench) -> None:
    sent_at: list[int] = []

    def tasks() -> Iterator[Sig]:
        for number in range(3):
            sent_at.append(len(bench.client.published))
            yield bench.mark.s(number)

    result = bench.go(chord(tasks(), bench.mark.s("body")))

    assert sent_at == [0, 0, 0]
    assert bench.value(result) == [[[0], [1], [2]], "body"]
