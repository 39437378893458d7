"""Signals reach who listens, and nobody's failure reaches the sender."""

import gc

import pytest

from qbroker.exceptions import CDeprecationWarning
from qbroker.serialization import Value
from qbroker.signals import Signal


def test_a_receiver_hears_the_sender_it_asked_for_and_no_other() -> None:
    signal = Signal(name="s")
    here, there = object(), object()
    heard: list[Value] = []

    @signal.connect(sender=here)
    def receive(sender: object, number: int, **_: Value) -> None:
        heard.append((sender, number))

    signal.send(there, number=1)
    signal.send(here, number=2)

    assert heard == [(here, 2)]


def test_a_signal_is_false_until_somebody_connects() -> None:
    signal = Signal(name="s")

    def receive(**_: Value) -> None: ...

    assert not signal
    signal.connect(receive)
    assert signal
    assert signal.disconnect(receive)
    assert not signal


def test_a_receiver_that_is_gone_is_forgotten_unless_held() -> None:
    weak, strong = Signal(name="weak"), Signal(name="strong")

    def connect() -> None:
        weak.connect(lambda **_: None)
        strong.connect(lambda **_: None, weak=False)

    connect()
    gc.collect()

    assert not weak
    assert strong


def test_what_a_receiver_raises_is_its_response() -> None:
    signal = Signal(name="s")
    trouble = ValueError("no")

    def fail(**_: Value) -> None:
        raise trouble

    def succeed(**_: Value) -> int:
        return 1

    signal.connect(fail)
    signal.connect(succeed)

    assert signal.send(None) == [(fail, trouble), (succeed, 1)]


def test_bound_methods_of_two_objects_are_two_receivers() -> None:
    signal = Signal(name="s")

    class Listener:
        count = 0

        def receive(self, **_: Value) -> None:
            self.count += 1

    first, second = Listener(), Listener()
    signal.connect(first.receive)
    signal.connect(first.receive)
    signal.connect(second.receive)
    signal.send(None)

    assert (first.count, second.count) == (1, 1)


def test_a_sender_by_name_is_whoever_has_that_name() -> None:
    signal = Signal(name="s")
    heard: list[str] = []
    written, sent = "proj.add", f"proj.{'add'!s}"
    assert written is not sent

    signal.connect(lambda sender, **_: heard.append(sender), sender=written, weak=False)
    signal.send(sent)
    signal.send("proj.mul")

    assert heard == ["proj.add"]


def test_a_receiver_that_is_to_be_tried_again_is_called_until_it_raises_nothing() -> None:
    pauses: list[float] = []
    signal = Signal(name="s", pause=pauses.append)

    @signal.connect(retry=True)
    def receive(number: int, **_: Value) -> int:
        if len(pauses) < 17:
            raise ConnectionError("not yet")
        return number

    assert [answer for _, answer in signal.send(None, number=4)] == [4]
    assert pauses == [*range(2, 30, 2), 30, 30, 30]
    assert signal.disconnect(receive)
    assert not signal


def test_who_is_tried_again_is_held() -> None:
    signal = Signal(name="s")

    signal.connect(lambda **_: None, retry=True)
    gc.collect()

    assert signal


def test_a_receiver_may_die_while_another_is_connected_or_disconnected() -> None:
    signal = Signal(name="s")
    victims: list[Value] = []

    class Name:
        """A dispatch_uid whose comparison frees a receiver, as the garbage collector may at any time."""

        def __hash__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            victims.clear()
            return self is other

    def victim(**_: Value) -> None: ...

    def other(**_: Value) -> None: ...

    victims.append(victim)
    signal.connect(victim)
    del victim

    signal.connect(other, dispatch_uid=Name())

    assert victims == []
    assert signal._live(None) == [other]
    assert len(signal._receivers) == 1


@pytest.mark.parametrize("weak", [True, False])
def test_a_receiver_is_disconnected_with_a_warning_that_weak_has_no_effect(weak: bool) -> None:
    signal = Signal(name="s")

    def receive(sender: object, **_: Value) -> None: ...

    signal.connect(receive)

    with pytest.warns(CDeprecationWarning, match="`weak` to disconnect has no effect") as told:
        assert signal.disconnect(receive, None, weak)

    assert [warning.filename for warning in told] == [__file__]
    assert not signal.has_listeners()
