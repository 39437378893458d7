"""One call as a value."""

import copy
import pickle

import pytest

from qbroker import App, Signature, chain, maybe_signature, signature, subtask
from qbroker.serialization import Value


@pytest.fixture
def app() -> App:
    """An app of two tasks, current so that what is unpickled finds them."""
    made = App("proj")

    @made.task(name="proj.add", shared=False)
    def add(x: int, y: int) -> int:
        return x + y

    return made


@pytest.fixture
def add(app: App) -> Value:
    """The task."""
    return app.tasks["proj.add"]


def test_arguments_given_later_come_first_and_keywords_and_options_win(add: Value) -> None:
    sig = add.signature((2,), {"y": 1}, queue="a", priority=1)

    later = sig.clone((1,), {"y": 5}, queue="b")

    assert (later.args, later.kwargs) == ((1, 2), {"y": 5})
    assert later.options == {"queue": "b", "priority": 1}
    assert (sig.args, sig.kwargs, sig.options) == ((2,), {"y": 1}, {"queue": "a", "priority": 1})


def test_a_dict_may_leave_out_whether_it_is_immutable(app: App) -> None:
    sig = signature({"task": "proj.add", "args": (2,), "kwargs": {}, "options": {}}, app=app)

    assert not sig.immutable
    assert sig.clone((1,)).args == (1, 2)
    assert sig.apply((1,)).get() == 3
    chained = {"task": "celery.chain", "args": None, "kwargs": {"tasks": [sig]}, "options": {}}
    assert chain.from_dict(chained, app=app).apply((1,)).get() == 3


def test_an_immutable_one_takes_options_and_no_arguments(add: Value) -> None:
    later = add.si(2, 2).clone((1,), {"z": 1}, queue="b")

    assert (later.args, later.kwargs, later.options) == ((2, 2), {}, {"queue": "b"})


def test_a_group_once_set_and_stamps_stay(add: Value) -> None:
    sig = add.s(1).set(group_id="g", stamped_headers=["who"], who="me")

    later = sig.clone(group_id="other", who="you", stamped_headers=["x"])

    assert later.options == {"group_id": "g", "stamped_headers": ["who"], "who": "me"}


def test_a_clone_shares_nothing_that_is_changed(add: Value) -> None:
    sig = add.s(1, y=2)
    sig.link(add.s(3))

    copied = sig.clone()
    copied.kwargs["y"] = 9
    copied.link(add.s(4))
    copied.options["link"][0].set(queue="b")

    assert sig.kwargs == {"y": 2}
    assert sig.options == {"link": [add.s(3)]}
    assert copy.deepcopy(sig) == sig


def test_parts_can_be_replaced_and_set(add: Value) -> None:
    sig = add.s(1, 2).set(queue="a", immutable=True)

    other = sig.replace(args=(3,), kwargs={"y": 4}, options={"priority": 2})

    assert (other.args, other.kwargs, other.options, other.immutable) == (
        (3,),
        {"y": 4},
        {"priority": 2},
        True,
    )
    assert (sig.args, sig.options) == ((1, 2), {"queue": "a"})


def test_freezing_chooses_an_id_once(add: Value) -> None:
    sig = add.s(1, 2)

    result = sig.freeze(group_id="g", root_id="r", parent_id="p", group_index=3)

    assert sig.id == result.id == sig.freeze("another").id
    assert (sig.root_id, sig.parent_id) == ("r", "p")
    assert (sig.options["group_id"], sig.options["group_index"]) == ("g", 3)


def test_links_are_a_set_in_order_and_flat_on_demand(add: Value) -> None:
    sig, callback = add.s(1, 1), add.s(2)
    callback.link(add.s(3))

    assert sig.link(callback) is callback
    sig.link(add.s(2) | add.s(9))
    sig.link(callback)
    assert sig.on_error(add.s(8)) is sig

    assert len(sig.options["link"]) == 2
    assert sig.options["link_error"] == [add.s(8)]
    assert add.s(1, 1).on_error(add.s(8)).flatten_links() == [add.s(1, 1).on_error(add.s(8))]
    assert [one.args for one in callback.flatten_links()] == [(2,), (3,)]


def test_it_is_a_dict_that_travels(app: App, add: Value) -> None:
    sig = add.s(1, y=2).set(queue="a")

    assert signature(dict(sig), app=app) == sig
    assert subtask(sig) == sig
    assert pickle.loads(pickle.dumps(sig)) == sig  # noqa: S301 - our own bytes
    assert maybe_signature(None) is None
    assert maybe_signature(5) == 5
    assert maybe_signature(dict(sig), app).app is app
    assert maybe_signature(sig, clone=True) is not sig


def test_what_it_is_called_is_shown(add: Value) -> None:
    assert repr(add.s(2, y=3)) == "proj.add(2, y=3)"
    assert add.s(2).reprcall(1) == "proj.add(1, 2)"
    assert add.s(2).name == add.s(2).task == "proj.add"


def test_it_is_called_here_or_run_as_a_worker_would(add: Value) -> None:
    assert add.s(2)(1) == 3
    assert add.s(2).apply((1,)).get() == 3


def test_two_make_a_chain(add: Value) -> None:
    sig = add.s(1, 1)
    joined = sig | add.s(2)
    sig |= add.s(3)

    assert [one.args for one in joined.tasks] == [(1, 1), (2,)]
    assert [one.args for one in sig.tasks] == [(1, 1), (3,)]
    assert isinstance(joined, type(chain()).__mro__[1])
    with pytest.raises(TypeError):
        _ = add.s(1) | 5


def test_a_kind_of_ones_own_can_be_registered(add: Value) -> None:
    @Signature.register_type("mine")
    class Mine(Signature[Value]):
        @classmethod
        def from_dict(cls, d: Value, app: Value = None) -> "Mine":
            return cls(d["task"], app=app)

    try:
        assert type(signature({"task": "x", "subtask_type": "mine"})) is Mine
    finally:
        del Signature.TYPES["mine"]
