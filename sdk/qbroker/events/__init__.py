"""Events: what clients and workers tell while they work, and what can be made of it.

    state = app.events.State()
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"task-failed": report, "*": state.event})
        receiver.capture(limit=None, timeout=None, wakeup=True)

An event is a dict with a `type` such as "task-succeeded". Nothing is kept for who does not listen.
"""

from qbroker.events.dispatcher import EventDispatcher
from qbroker.events.event import Event, group_from
from qbroker.events.receiver import EventReceiver
from qbroker.events.state import State

__all__ = ["Event", "EventDispatcher", "EventReceiver", "State", "group_from"]
