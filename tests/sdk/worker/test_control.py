"""The panel of remote commands."""

from collections.abc import Iterator

import pytest

from qbroker.serialization import Value
from qbroker.worker.control import (
    BUILT_IN,
    Info,
    Panel,
    arguments_of,
    control_command,
    inspect_command,
    nok,
    ok,
)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(Panel.data), dict(Panel.meta)
    yield
    Panel.data.clear()
    Panel.data.update(before[0])
    Panel.meta.clear()
    Panel.meta.update(before[1])


def test_a_function_becomes_a_command_with_what_is_known_of_it() -> None:
    @control_command(args=[("n", int)], signature="[N=1]", alias="more")
    def grow(state: Value, n: int = 1) -> Value:
        """Be larger.

        Much.
        """
        return ok(n)

    @inspect_command(name="size", help="How large.", visible=False, default_timeout=3.0)
    def anything(state: Value) -> Value:
        return nok("small")

    assert Panel.data["grow"] is Panel.data["more"] is grow
    assert Panel.data["size"] is anything
    assert Panel.meta["grow"][:6] == ("more", "control", True, 1.0, "Be larger.", "[N=1]")
    assert Panel.meta["size"][:5] == (None, "inspect", False, 3.0, "How large.")
    assert grow(None, 2) == {"ok": 2}
    assert anything(None) == {"error": "small"}


def test_the_panel_may_be_used_itself() -> None:
    def one(state: Value) -> Value:
        """One."""

    def two(state: Value) -> Value:
        """Two."""

    Panel.register(one)
    Panel.register(type="inspect")(two)

    assert (Panel.meta["one"].type, Panel.meta["two"].type) == ("control", "inspect")


@pytest.mark.parametrize(
    ("name", "words", "found"),
    [
        ("ping", (), {}),
        ("query_task", ("a", "b"), {"ids": ["a", "b"]}),
        ("query_task", (), {"ids": []}),
        ("terminate", ("KILL", "a"), {"signal": "KILL", "task_id": ["a"]}),
        ("autoscale", ("10",), {"max": 10}),
        ("time_limit", ("add", "1.5", "2"), {"task_name": "add", "soft": 1.5, "hard": 2.0}),
        ("conf", ("true",), {"with_defaults": True}),
        ("conf", ("0",), {"with_defaults": False}),
    ],
)
def test_words_are_arguments_in_their_order(
    name: str, words: tuple[str, ...], found: dict[str, Value]
) -> None:
    assert arguments_of(name, BUILT_IN[name], words) == found


@pytest.mark.parametrize(
    ("name", "words", "why"),
    [
        ("ping", ("x",), "'ping' takes: nothing"),
        ("autoscale", ("many",), "autoscale: max: "),
        ("conf", ("maybe",), "neither true nor false"),
        ("cancel_consumer", (), "'cancel_consumer' takes: <queue>"),
        ("rate_limit", ("add",), "<rate_limit"),
    ],
)
def test_words_that_mean_nothing_are_refused(name: str, words: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why.replace("(", r"\(")):
        arguments_of(name, BUILT_IN[name], words)


def test_an_argument_without_a_parser_is_the_word() -> None:
    info = Info(None, "control", True, 1.0, "", None, (("x", None),))

    assert arguments_of("any", info, ("1",)) == {"x": "1"}


def test_every_built_in_command_is_in_the_panel_with_a_line_of_help() -> None:
    assert BUILT_IN.items() <= Panel.meta.items()
    assert all(info.help.endswith(("?", ".")) for info in BUILT_IN.values())
