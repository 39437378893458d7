"""Chain, group, chord and their kin: how they are made, shown and run right here."""

import re
from collections.abc import Callable

import pytest

from qbroker import App, chain, chord, chunks, group, xmap, xstarmap
from qbroker.canvas import _chain, maybe_unroll_group
from qbroker.exceptions import ChordError, MessageRefused
from qbroker.result import GroupResult
from qbroker.serialization import Value, json_decode, json_encode


@pytest.fixture
def app() -> App:
    """Tasks, run where they are called."""
    made = App("proj", set_as_current=False, task_always_eager=True)

    @made.task(name="proj.tasks.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @made.task(name="proj.tasks.xsum", shared=False)
    def xsum(values: list[int]) -> int:
        return sum(values)

    @made.task(name="other.mul", shared=False)
    def mul(x: int, y: int) -> int:
        return x * y

    @made.task(name="proj.tasks.fail", shared=False, typing=False)
    def fail(*args: int) -> None:
        raise ValueError("no")

    return made


@pytest.fixture
def add(app: App) -> Value:
    return app.tasks["proj.tasks.add"]


@pytest.fixture
def xsum(app: App) -> Value:
    return app.tasks["proj.tasks.xsum"]


@pytest.fixture
def mul(app: App) -> Value:
    return app.tasks["other.mul"]


def test_texts_are_celerys(add: Value, xsum: Value, mul: Value) -> None:
    header = [add.s(1, 1), add.s(2, 2)]

    assert [
        repr(sig)
        for sig in (
            add.s(2, 2) | mul.s(4) | add.s(1),
            group(add.s(i, i) for i in range(3)),
            group(),
            chord(header, xsum.s()),
            group(add.s(1, 1), mul.s(2, 2)) | xsum.s(),
            add.map([1, 2]),
            add.starmap([(1, 2), (3, 4)]),
            add.s(1, 1) | group(add.s(1), add.s(2)) | xsum.s(),
            chord(header, xsum.s() | add.s(1) | add.s(2)),
            add.s(1) | group([add.s(2)]),
        )
    ] == [
        "proj.tasks.add(2, 2) | other.mul(4) | add(1)",
        "group([proj.tasks.add(0, 0), add(1, 1), add(2, 2)])",
        "group(<empty>)",
        "%proj.tasks.xsum([add(1, 1), add(2, 2)])",
        "%proj.tasks.xsum([add(1, 1), other.mul(2, 2)])",
        "[proj.tasks.add(x) for x in [1, 2]]",
        "[proj.tasks.add(*x) for x in [(1, 2), (3, 4)]]",
        "proj.tasks.add(1, 1) | %xsum([add(1), add(2)])",
        "%(proj.tasks.xsum([add(1, 1), add(2, 2)]) | add(1) | add(2))",
        "proj.tasks.add(1) | add(2)",
    ]
    assert repr(chord(header)).startswith("<chord without body: [proj.tasks.add(1, 1)")
    assert repr(chain()).endswith(": empty>")


def test_what_bars_make(add: Value, xsum: Value) -> None:
    pair = group(add.s(1), add.s(2))

    assert isinstance(pair | xsum.s(), chord)
    assert isinstance(chord(pair, xsum.s()) | add.s(1), chord)
    assert isinstance(add.s(1, 1) | pair | xsum.s(), _chain)
    assert (pair | group()) is pair
    assert [type(one) for one in (add.s(1, 1) | pair | xsum.s()).tasks[1:]] == [chord]
    assert len((add.s(1, 1) | (add.s(2) | add.s(3))).tasks) == 3
    assert len((chain(add.s(1, 1), add.s(2)) | chain(add.s(3), add.s(4))).tasks) == 4


def test_a_chain_of_one_iterable_or_of_several_is_the_same(add: Value) -> None:
    parts = [add.s(1, 1), add.s(2), add.s(3)]

    assert chain(parts) == chain(*parts) == chain(iter(parts)) == parts[0] | parts[1] | parts[2]
    assert chain([group(parts)]) == group(parts)
    with pytest.raises(TypeError, match="made of signatures"):
        chain(add.s(1, 1), 5)


def test_making_a_chain_changes_nothing_of_what_it_is_made_of(add: Value, xsum: Value) -> None:
    first = chord([add.s(1, 1)], xsum.s())
    text = repr(first)

    _ = chain(first, add.s(1), add.s(2))
    _ = first | add.s(1)
    _ = first | group(add.s(1), add.s(2)) | xsum.s()

    assert repr(first) == text


def test_links_of_a_chain_are_its_last_tasks_and_errbacks_all_tasks(add: Value) -> None:
    sig = add.s(1, 1) | add.s(2)
    sig.link(add.s(7))
    sig.link_error(add.s(8))

    first, last, added = (sig | add.s(3)).tasks

    assert "link" not in first.options
    assert last.options["link"] == [add.s(7)]
    assert first.options["link_error"] == last.options["link_error"] == [add.s(8)]
    assert added.options == {}


def test_links_of_groups_and_chords(app: App, add: Value, xsum: Value) -> None:
    pair = group(add.s(1, 1), add.s(2, 2))
    pair.link(add.s(7))
    pair.link_error(add.s(8))
    whole = chord([add.s(1, 1)], xsum.s())
    whole.link(add.s(7))
    whole.link_error(add.s(8))

    assert pair.tasks[0].options["link"] == [add.si(7)]
    assert "link" not in pair.tasks[1].options
    assert all(task.options["link_error"] == [add.s(8)] for task in pair.tasks)
    assert whole.body.options == {"link": [add.s(7)], "link_error": [add.s(8)]}
    assert whole.header[0].options == {}

    app.conf.task_allow_error_cb_on_chord_header = True
    whole.link_error(add.s(9))
    assert whole.header[0].options["link_error"] == [add.si(9)]


def test_a_group_is_its_tasks(add: Value) -> None:
    sig = group(add.s(i, i) for i in range(4))

    assert len(sig) == 4
    assert [task.options for task in sig.skew(start=1, stop=3).tasks] == [
        {"countdown": 1.0},
        {"countdown": 2.0},
        {"countdown": 3.0},
        {"countdown": 3.0},
    ]
    sig.set_immutable(True)
    assert all(task.immutable for task in sig.tasks)
    assert maybe_unroll_group(group(add.s(1))) == add.s(1)
    assert group(add.s(1)).tasks == group([add.s(1)]).tasks == group(group(add.s(1))).tasks
    with pytest.raises(TypeError, match="use a chord"):
        sig.apply_async(link=add.s(1))
    with pytest.raises(TypeError, match="on individual tasks"):
        sig.apply_async(link_error=add.s(1))


def test_frozen_ids_are_those_of_the_results(add: Value, xsum: Value) -> None:
    sig = add.s(1, 1) | group(add.s(1), add.s(2)) | xsum.s()

    result = sig.freeze("last")

    assert result.id == sig.id == "last"
    assert isinstance(result.parent, GroupResult)
    assert result.parent.parent.id == sig.tasks[0].id
    assert [one.id for one in result.parent] == [task.id for task in sig.tasks[1].header]
    assert chain(add.s(1, 1), add.s(2)).freeze().as_list() != []
    with pytest.raises(ValueError, match="an empty chain"):
        chain().freeze()


def test_a_canvas_travels_as_json(app: App, add: Value, xsum: Value) -> None:
    for sig in (
        add.s(1, 1) | group(add.s(1), add.s(2)) | xsum.s() | add.s(4),
        chord([add.s(1, 1), chain(add.s(2, 2), add.s(3))], xsum.s()),
        add.starmap([[1, 2]]),
        add.chunks([[1, 2], [3, 4], [5, 6]], 2),
    ):
        rebuilt = app.signature(json_decode(json_encode(sig)))

        assert type(rebuilt) is type(sig)
        assert json_encode(rebuilt) == json_encode(sig)


def test_run_right_here(add: Value, xsum: Value, mul: Value) -> None:
    assert chain(add.s(4, 4), mul.s(8))().get() == 64
    assert (~(add.s(4, 4) | mul.s(8))) == 64
    assert group(add.s(i, i) for i in range(10))().get() == [i * 2 for i in range(10)]
    assert group(add.s(1), add.s(2))(10).get() == [11, 12]
    assert chord((add.s(i, i) for i in range(10)), xsum.s())().get() == 90
    assert chord([add.s(1, 1)])(xsum.s()).get() == 2
    assert (group(add.s(1), add.s(2)) | xsum.s()).apply_async((10,)).get() == 23
    assert chord([], xsum.s())().get() == 0
    assert group()().get() == []
    assert chain()() is None


def test_many_arguments_of_one_task(add: Value, xsum: Value) -> None:
    assert isinstance(xsum.map([[1, 2]]), xmap)
    assert xsum.map([[1, 2], [3]]).apply_async().get() == [3, 3]
    assert isinstance(add.starmap([(1, 2)]), xstarmap)
    assert add.starmap(zip(range(3), range(3), strict=True)).apply_async().get() == [0, 2, 4]
    parts = add.chunks(zip(range(5), range(5), strict=True), 2)
    assert isinstance(parts, chunks)
    assert parts().get() == [[0, 2], [4, 6], [8]]
    assert len(parts.group()) == 3
    assert chunks.apply_chunks(add.s(), [(1, 1)], 10, add.app).get() == [[2]]


def test_what_fails_right_here_is_raised_and_told(app: App, add: Value, xsum: Value) -> None:
    fail = app.tasks["proj.tasks.fail"]
    told: list[Value] = []

    @app.task(name="proj.tasks.tell", shared=False)
    def tell(request: Value, exc: BaseException, traceback: Value) -> None:
        told.append(type(exc))

    with pytest.raises(ValueError, match="no"):
        chain(fail.s().on_error(tell.s()), add.s(1)).apply()
    with pytest.raises(ValueError, match="no"):
        chord([fail.s(), add.s(1, 1)], xsum.s().on_error(tell.s())).apply()
    last = chain(add.s(1, 1), fail.s()).apply()

    assert told == [ValueError, ChordError]
    assert last.state == "FAILURE"
    with pytest.raises(ValueError, match="no"):
        last.get()


def test_callbacks_are_called_right_here_too(app: App, add: Value) -> None:
    heard: list[Value] = []

    @app.task(name="proj.tasks.hear", shared=False)
    def hear(value: Value) -> None:
        heard.append(value)

    add.apply((1, 1), link=hear.s())
    chain(add.s(1, 1), add.s(1)).apply_async(link=hear.s())
    chord([add.s(1, 1)], add.app.tasks["proj.tasks.xsum"].s()).apply_async(link=hear.s())

    assert heard == [2, 3, 2]


def test_a_replacement_right_here(app: App, add: Value, mul: Value) -> None:
    @app.task(name="proj.tasks.double", bind=True, shared=False)
    def double(self: Value, x: int) -> Value:
        return self.replace(add.s(x, x) | mul.s(10))

    assert double.delay(4).get() == 80
    assert (double.s(1) | add.s(1)).apply_async().get() == 21


# -- ids that are in use ---------------------------------------------------------------------------


def _made(app: App) -> dict[str, Callable[[], Value]]:
    @app.task(name="canvas.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="canvas.total", shared=False)
    def total(values: list[int]) -> int:
        return sum(values)

    return {
        "task": lambda: add.s(1, 1),
        "linked task": lambda: add.s(1, 1).set(link=add.s(1)),
        "chain": lambda: chain(add.s(1, 1), add.s(1)),
        "group": lambda: group(add.s(1, 1), add.s(2, 2)),
        "chord": lambda: chord([add.s(1, 1), add.s(2, 2)], total.s()),
    }


@pytest.mark.parametrize("kind", ["linked task", "chain", "group", "chord"])
def test_a_canvas_whose_ids_are_in_use_is_refused_and_told_the_way_out(
    real_app: App, kind: str
) -> None:
    make = _made(real_app)[kind]
    canvas = make()
    canvas.freeze()
    canvas.apply_async(queue="slow")

    with pytest.raises(MessageRefused) as again:
        canvas.apply_async(queue="slow")
    with pytest.raises(MessageRefused):
        canvas.clone().apply_async(queue="slow")
    others = make().apply_async(queue="slow")

    assert re.search(
        r"id '[-0-9a-f]{36}' is in use: its task is (queued|waiting) in queue '(slow|celery)'\. "
        r"Give the call another task_id, or wait for its end or revoke it .*build it again, or clone it",
        str(again.value),
    )
    assert others.id


@pytest.mark.parametrize("kind", ["task", "linked task", "chain", "group", "chord"])
def test_a_canvas_that_was_not_frozen_gets_other_ids_at_each_call(real_app: App, kind: str) -> None:
    canvas = _made(real_app)[kind]()

    first, second, third = canvas.apply_async(), canvas.apply_async(), canvas.clone().apply_async()

    assert len({first.id, second.id, third.id}) == 3


def test_a_task_alone_whose_id_is_known_is_the_task_that_has_the_id(real_app: App) -> None:
    make = _made(real_app)["task"]
    first = make().apply_async(task_id="y", queue="slow")

    second = make().apply_async(task_id="y", queue="slow")

    assert first.id == second.id == "y"
    (slow,) = real_app.client().list_queues("slow")
    assert slow.ready_count == 1
