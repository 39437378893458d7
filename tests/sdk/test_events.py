"""`app.events`."""

from qbroker import App
from qbroker.events import EventDispatcher, EventReceiver, State


def test_the_classes_are_the_apps(real_app: App) -> None:
    events = real_app.events

    receiver, dispatcher, state = events.Receiver(), events.Dispatcher(), events.State()

    assert isinstance(receiver, EventReceiver)
    assert isinstance(dispatcher, EventDispatcher)
    assert isinstance(state, State)
    assert receiver.app is dispatcher.app is real_app


def test_a_dispatcher_may_speak_in_another_name(real_app: App) -> None:
    with real_app.events.default_dispatcher("me@here", enabled=False) as dispatcher:
        assert (dispatcher.hostname, dispatcher.enabled) == ("me@here", False)
