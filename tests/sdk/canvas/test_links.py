"""Callbacks and errbacks on every shape of canvas, and what a canvas refuses to be made of."""

import contextlib
import re
from collections.abc import Callable

import pytest

from qbroker import App, chain, chord, group
from qbroker.canvas import maybe_signature
from qbroker.result import GroupResult
from qbroker.serialization import Value, json_decode, json_encode

Make = Callable[["Bench"], Value]
Link = Callable[[Value, Value], Value]


class Bench:
    """Tasks that run where they are called, and what their callbacks were called with."""

    def __init__(self) -> None:
        self.heard: list[Value] = []
        self.failed: list[Value] = []
        self.app = app = App("links", set_as_current=False, task_always_eager=True)

        @app.task(name="links.add", shared=False)
        def add(x: int, y: int) -> int:
            return x + y

        @app.task(name="links.total", shared=False)
        def total(values: list[int]) -> int:
            return sum(values)

        @app.task(name="links.fail", shared=False, typing=False)
        def fail(*args: int) -> None:
            raise ValueError("no")

        @app.task(name="links.record", shared=False)
        def record(value: int, tag: str = "") -> None:
            self.heard.append((value, tag))

        @app.task(name="links.note", shared=False)
        def note(tag: str) -> None:
            self.heard.append(tag)

        @app.task(name="links.tell", shared=False)
        def tell(task_id: str) -> None:
            self.failed.append(task_id)

        self.add, self.total, self.fail = add, total, fail
        self.record, self.note, self.tell = record, note, tell

    def header(self) -> list[Value]:
        """Two tasks whose sum is 6."""
        return [self.add.s(1, 1), self.add.s(2, 2)]

    def pair(self) -> Value:
        """A group of two tasks that take a list."""
        return group(self.total.s(), self.total.s())


@pytest.fixture
def bench() -> Bench:
    return Bench()


SHAPES: dict[str, tuple[Make, list[int]]] = {
    "a task": (lambda b: b.add.s(1, 1), [2]),
    "a chain": (lambda b: b.add.s(1, 1) | b.add.s(1), [3]),
    "a chain that ends in a group": (
        lambda b: chain(b.add.s(1, 1), group(b.add.s(1), b.add.s(2))),
        [3, 4],
    ),
    "a chord": (lambda b: chord(b.header(), b.total.s()), [6]),
    "a chord whose body is a chain": (lambda b: chord(b.header(), b.total.s() | b.add.s(1)), [7]),
    "a chord whose body is a group": (lambda b: chord(b.header(), b.pair()), [6, 6]),
    "a group and a group": (lambda b: group(b.header()) | b.pair(), [6, 6]),
    "a chain that ends in a chord whose body is a group": (
        lambda b: chain(b.add.si(1, 1), chord([b.add.s(1), b.add.s(2)], b.pair())),
        [7, 7],
    ),
    "a chord whose body is a chain that ends in a group": (
        lambda b: chord(b.header(), chain(b.total.s(), group(b.add.s(1), b.add.s(2)))),
        [7, 8],
    ),
    "a chord whose body is a chord with a group": (
        lambda b: chord(b.header(), chord([b.total.s(), b.total.s()], b.pair())),
        [12, 12],
    ),
    "a chord whose body is a group in a group": (
        lambda b: chord(b.header(), group(b.total.s(), b.pair())),
        [6, 6, 6],
    ),
    "a chord whose body has a chord": (
        lambda b: chord(b.header(), group(b.total.s(), chord([b.total.s()] * 2, b.total.s()))),
        [6, 12],
    ),
    "a chord whose body has a chain": (
        lambda b: chord(b.header(), group(b.total.s(), b.total.s() | b.add.s(1))),
        [6, 7],
    ),
}

WAYS: dict[str, Link] = {
    "given to the call": lambda sig, link: sig.apply_async(link=link),
    "linked": lambda sig, link: (sig.link(link), sig.apply_async())[1],
    "set": lambda sig, link: sig.set(link=[link]).apply_async(),
    "set and cloned": lambda sig, link: sig.set(link=link).clone().apply_async(),
    "linked and cloned": lambda sig, link: (sig.link(link), sig.clone().apply_async())[1],
    "frozen": lambda sig, link: (sig.freeze(), sig.apply_async(link=link))[1],
    "serialized": lambda sig, link: maybe_signature(
        json_decode(json_encode((sig.link(link), sig)[1])), sig.app
    ).apply_async(),
    "a serialized callback": lambda sig, link: sig.apply_async(link=json_decode(json_encode(link))),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_callback_is_called_with_each_value_that_a_canvas_has(
    bench: Bench, shape: str, way: str
) -> None:
    make, values = SHAPES[shape]

    result = WAYS[way](make(bench), bench.record.s(tag="L"))

    assert sorted(bench.heard) == [(value, "L") for value in values]
    assert sorted(as_values(result)) == values


def as_values(result: Value) -> list[int]:
    """The values of a result, of which a group has several."""
    return result.get() if isinstance(result, GroupResult) else [result.get()]


@pytest.mark.parametrize("way", [way for way in WAYS if "cloned" not in way or "linked" in way])
def test_an_immutable_callback_of_a_body_that_is_a_group_is_called_once(
    bench: Bench, way: str
) -> None:
    sig = chord(bench.header(), bench.pair())

    WAYS[way](sig, bench.note.si("done"))

    assert bench.heard == ["done"]


def test_a_callback_of_a_call_is_not_kept_for_the_next(bench: Bench) -> None:
    sig = chord(bench.header(), bench.pair())

    sig.apply_async(link=bench.record.s(tag="first"))
    sig.apply_async(link=bench.record.s(tag="second"))

    assert [tag for _, tag in bench.heard] == ["first"] * 2 + ["second"] * 2


def test_callbacks_of_a_body_and_its_tasks_are_kept_beside_the_chords(bench: Bench) -> None:
    first = bench.total.s()
    first.link(bench.record.s(tag="own"))
    sig = chord(bench.header(), group(first, bench.total.s()))

    sig.apply_async(link=bench.record.s(tag="chord"))

    assert sorted(bench.heard) == [(6, "chord"), (6, "chord"), (6, "own")]


FAILING: dict[str, Make] = {
    "a task": lambda b: b.fail.s(),
    "a chain": lambda b: b.add.s(1, 1) | b.fail.s(),
    "a chord": lambda b: chord(b.header(), b.fail.s()),
    "a chord whose header fails": lambda b: chord([b.add.s(1, 1), b.fail.s()], b.total.s()),
    "a chord whose body is a group": lambda b: chord(b.header(), group(b.total.s(), b.fail.s())),
    "a chain that ends in a group": lambda b: chain(b.add.s(1, 1), group(b.add.s(1), b.fail.s())),
    "a chord whose body is a chord": lambda b: chord(
        b.header(), chord([b.total.s(), b.total.s()], b.fail.s())
    ),
}


@pytest.mark.parametrize("way", ["given to the call", "linked", "serialized"])
@pytest.mark.parametrize("shape", FAILING)
def test_an_errback_is_called_once_for_the_task_that_failed(
    bench: Bench, shape: str, way: str
) -> None:
    sig = FAILING[shape](bench)
    errback = bench.tell.s()
    if way != "given to the call":
        sig.link_error(errback)
    if way == "serialized":
        sig = maybe_signature(json_decode(json_encode(sig)), bench.app)

    with contextlib.suppress(ValueError):
        sig.apply_async(**({"link_error": errback} if way == "given to the call" else {})).get()

    assert len(bench.failed) == 1


def test_each_step_of_a_chain_has_an_errback_of_its_own(bench: Bench) -> None:
    sig: Value = bench.add.s(1, 1) | bench.add.s(2)
    sig.link_error(bench.tell.s())

    first, last = sig.unchain_tasks()
    first.options["link_error"][0].stamp(tag="first")

    assert first.options["link_error"][0].options["tag"] == "first"
    assert last.options["link_error"][0].options == {}
    assert sig.options["link_error"][0].options == {}


# -- misuse


def _closed() -> Value:
    """A coroutine that nobody awaits."""

    async def work() -> None: ...

    coroutine = work()
    coroutine.close()
    return coroutine


WRONG: dict[str, tuple[Callable[[Bench], Value], str]] = {
    "a function": (lambda b: print, "make the function a task"),
    "a task": (lambda b: b.record, r"pass the task's signature, links\.record\.s\(\)"),
    "None": (lambda b: [None], r"not of \[?None"),
    "a string": (lambda b: "links.record", r"pass app\.signature\('links\.record'\)"),
    "a result": (lambda b: b.app.AsyncResult("x"), "not its result"),
    "a number": (lambda b: 5, "not of 5"),
    "a coroutine": (lambda b: _closed(), "the signature of an `async def` task"),
    "a dict of something else": (lambda b: {"x": 1}, r"not of \{'x': 1\}"),
}

USES: dict[str, tuple[str, Callable[[Bench, Value], Value]]] = {
    "link of a call": ("the option 'link'", lambda b, x: b.add.apply_async((1, 2), link=x)),
    "link_error of a call": (
        "the option 'link_error'",
        lambda b, x: b.add.apply_async((1, 2), link_error=x),
    ),
    "link of apply": ("the option 'link'", lambda b, x: b.add.apply((1, 2), link=x)),
    "link of a chain": (
        "the option 'link'",
        lambda b, x: (b.add.s(1, 2) | b.add.s(1)).apply_async(link=x),
    ),
    "link of a chord": (
        "the option 'link'",
        lambda b, x: chord(b.header(), b.pair()).apply_async(link=x),
    ),
    "link_error of a chord": (
        "the option 'link_error'",
        lambda b, x: chord(b.header(), b.pair()).apply_async(link_error=x),
    ),
    "set link": ("the option 'link'", lambda b, x: b.add.s(1, 2).set(link=x).apply_async()),
    "a group's task": ("a group", lambda b, x: group(b.add.s(1, 2), _one(x)).apply_async()),
    "a chain's task": ("a chain", lambda b, x: chain(b.add.s(1, 2), _one(x))),
    "a chord's body": ("a chord's body", lambda b, x: chord(b.header(), x)),
    "a body that is given late": ("a chord's body", lambda b, x: chord(b.header())(x)),
}


def _one(found: Value) -> Value:
    return found[0] if isinstance(found, list) else found


@pytest.mark.parametrize("is_eager", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("use", USES)
def test_what_is_no_signature_is_refused_with_what_to_pass(
    bench: Bench, use: str, wrong: str, is_eager: bool
) -> None:
    bench.app.conf.task_always_eager = is_eager
    whole, call = USES[use]
    make, hint = WRONG[wrong]

    with pytest.raises(TypeError, match=rf"{whole} is made of signatures, not of .*") as raised:
        call(bench, make(bench))

    assert re.search(hint, str(raised.value))
    assert bench.heard == []


@pytest.mark.parametrize("make", [group, chain, chord])
@pytest.mark.parametrize("wrong", [None, print, 5, "links.record"])
def test_a_canvas_of_one_thing_that_is_no_signature_is_refused(make: Value, wrong: Value) -> None:
    with pytest.raises(TypeError, match=r"is made of signatures, not of"):
        make(wrong)


@pytest.mark.parametrize("wrong", [None, print, "links.record"])
def test_a_replacement_that_is_no_signature_is_refused(bench: Bench, wrong: Value) -> None:
    @bench.app.task(bind=True, shared=False)
    def replaces(self: Value) -> Value:
        return self.replace(wrong)

    result = replaces.apply()

    with pytest.raises(TypeError, match="a replacement is made of signatures, not of"):
        result.get()


def test_a_header_may_name_its_tasks(bench: Bench) -> None:
    sig = chord(["links.add"], bench.total.s(), app=bench.app)

    assert sig.tasks[0].task == "links.add"


def test_what_celery_6_would_change_is_used_without_a_warning(
    bench: Bench, recwarn: pytest.WarningsRecorder
) -> None:
    @bench.app.task(name="links.routed", queue="mail", priority=3, shared=False)
    def routed() -> None: ...

    sig = chord(bench.header(), bench.total.s())
    sig.link_error(bench.tell.s())

    assert bench.app.tasks["links.routed"].queue == "mail"
    assert not list(recwarn)
