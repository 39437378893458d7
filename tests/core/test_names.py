"""Every command that takes a name refuses one that could forge a line of a log or drive a terminal."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from qbroker_server.core import periodic, queue, routing
from qbroker_server.core.command import Command
from qbroker_server.core.errors import InvalidName
from qbroker_server.core.lease import Consume, Register
from qbroker_server.core.names import check_name
from qbroker_server.core.publish import NewMessage, check
from qbroker_server.core.records import Extras, Limit, QueueOptions
from qbroker_server.core.results import Keep
from qbroker_server.core.revoke import Revoke
from qbroker_server.core.routes import Binding, Exchange, ExchangeType, Route
from tests.support.scene import Scene, new

UNSAFE = ("\x00", "\n", "\x1b", "\x7f", "\x9b", "\u2028", "\u202e", "\u2067", "\u200f")


def with_extras(**fields: object) -> NewMessage:
    return replace(new(), extras=Extras(**fields))  # type: ignore[arg-type] # what each case gives


MESSAGES: Sequence[tuple[str, Callable[[str], NewMessage]]] = [
    ("message id", lambda name: new(name)),
    ("task name", lambda name: new(task=name)),
    ("queue name", lambda name: new(queue=name)),
    ("exchange name", lambda name: replace(new(), route=Route(name, "k", {}))),
    ("routing key", lambda name: replace(new(), route=Route("e", name, {}))),
    ("unique key", lambda name: with_extras(unique_key=name)),
    ("root id", lambda name: with_extras(root_id=name)),
    ("fairness key", lambda name: with_extras(fairness_key=name)),
    ("label", lambda name: with_extras(labels=(f"a={name}",))),
    ("limit key", lambda name: with_extras(limits=(Limit(name, 1.0, 1_000, 0),))),
    ("task name", lambda name: replace(new(), errbacks=(new("e", task=name),))),
]


@pytest.mark.parametrize("character", UNSAFE)
@pytest.mark.parametrize(("what", "make"), MESSAGES, ids=range(len(MESSAGES)))
def test_a_message_with_a_control_character_in_a_name_is_refused(
    what: str, make: Callable[[str], NewMessage], character: str
) -> None:
    message = make(f"x{character}y")

    with pytest.raises(InvalidName) as raised:
        check(message)

    assert str(raised.value).startswith(f"{what} ")
    assert f"U+{ord(character):04X}" in str(raised.value)
    assert str(raised.value).isprintable()


COMMANDS: Sequence[tuple[str, Callable[[str], Command[object]]]] = [
    ("queue name", lambda name: queue.Declare(name, QueueOptions())),
    ("queue name", lambda name: queue.Pause(name, "", "")),
    ("by whom it is paused", lambda name: queue.Pause("q", name, "")),
    ("reason of the pause", lambda name: queue.Pause("q", "", name)),
    ("queue name", lambda name: queue.Move("q", name)),
    ("session id", lambda name: Register(name, "w", ("q",), frozenset(), 1, ())),
    ("worker name", lambda name: Register("s", name, ("q",), frozenset(), 1, ())),
    ("queue name", lambda name: Register("s", "w", (name,), frozenset(), 1, ())),
    ("queue name", lambda name: Consume("s", (name,))),
    ("task id", lambda name: Keep(name, b"", 0)),
    ("by whom it is paused", lambda name: periodic.Pause("e", name, "")),
    ("reason of the pause", lambda name: periodic.Pause("e", "", name)),
    ("message id", lambda name: Revoke((name,))),
    ("exchange name", lambda name: routing.Declare((Exchange(name),))),
    (
        "routing key",
        lambda name: routing.Declare(
            (Exchange("e", ExchangeType.TOPIC),), bindings=(Binding("e", "q", name),)
        ),
    ),
]


@pytest.mark.parametrize("character", UNSAFE)
@pytest.mark.parametrize(("what", "make"), COMMANDS, ids=range(len(COMMANDS)))
def test_a_command_with_a_control_character_in_a_name_is_refused(
    what: str, make: Callable[[str], Command[object]], character: str
) -> None:
    scene = Scene()
    command = make(f"x{character}y")

    with pytest.raises(InvalidName) as raised:
        scene.do(command)

    assert str(raised.value).startswith(f"{what} ")
    assert f"U+{ord(character):04X}" in str(raised.value)


def test_a_name_has_1_to_255_bytes_of_any_language() -> None:
    check_name("queue name", "é" * 127)

    with pytest.raises(InvalidName, match="queue name '' has 0 bytes; it must have 1 to 255"):
        check_name("queue name", "")
    with pytest.raises(InvalidName, match="has 256 bytes"):
        check_name("queue name", "é" * 128)
