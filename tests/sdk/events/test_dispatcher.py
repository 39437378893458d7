"""Telling events, at the real broker."""

import os

from qbroker import App
from qbroker.events.dispatcher import EventDispatcher
from qbroker.serialization import Value
from tests.sdk.events.listening import listening


def test_an_event_reaches_who_listens_with_who_told_it(real_app: App) -> None:
    with listening(real_app) as heard, real_app.events.default_dispatcher() as dispatcher:
        dispatcher.send("custom-x", size=3)
        event = heard.next()

    assert (event["type"], event["size"], event["pid"]) == ("custom-x", 3, os.getpid())
    assert event["hostname"].startswith(f"gen{os.getpid()}@")
    assert {"timestamp", "utcoffset", "clock", "local_received"} <= event.keys()


def test_only_what_is_enabled_is_told(real_app: App) -> None:
    changes: list[str] = []
    with listening(real_app) as heard:
        with real_app.events.Dispatcher(None, "me@here", groups=["task"]) as dispatcher:
            dispatcher.on_enabled.add(lambda: changes.append("on"))
            dispatcher.on_disabled.add(lambda: changes.append("off"))
            dispatcher.send("worker-x")
            dispatcher.disable()
            dispatcher.disable()
            dispatcher.send("task-unheard")
            dispatcher.enable()
            dispatcher.send("task-heard")
            dispatcher.flush()
        event = heard.next()

    assert (event["type"], event["hostname"]) == ("task-heard", "me@here")
    assert changes == ["off", "on"]


def test_a_task_tells_of_itself(real_app: App) -> None:
    told: list[Value] = []

    @real_app.task(bind=True, name="t")
    def report(self: Value) -> None:
        self.send_event("task-progress", done=5)
        told.append(self.request.id)

    with listening(real_app) as heard:
        _ = report.apply()
        event = heard.next()

    assert (event["type"], event["uuid"], event["done"]) == ("task-progress", told[0], 5)


def test_calls_are_told_of_where_that_is_asked_for(real_app: App) -> None:
    _ = real_app.send_task("t")
    real_app.conf.task_send_sent_event = True
    with listening(real_app) as heard:
        sent = real_app.send_task("t", (2, 2), {"z": 1}, queue="mail", countdown=3600)
        event = heard.next()

    assert (event["type"], event["uuid"], event["name"]) == ("task-sent", sent.id, "t")
    assert (event["args"], event["kwargs"]) == ("(2, 2)", "{'z': 1}")
    assert (event["queue"], event["routing_key"], event["exchange"]) == ("mail", "mail", "")
    assert (event["root_id"], event["parent_id"], event["retries"]) == (sent.id, None, 0)
    assert event["eta"].endswith("+00:00")
    assert event["expires"] is None


def test_where_nobody_listens_nothing_is_sent(real_app: App) -> None:
    with listening(real_app) as heard:
        with real_app.events.default_dispatcher() as dispatcher:
            dispatcher.send("custom-first")
        first = heard.next()
    teller = real_app.client()._connected().teller
    heard.until(lambda: not teller._is_wanted)

    with real_app.events.default_dispatcher() as dispatcher:
        dispatcher.send("custom-unheard")

    assert first["type"] == "custom-first"
    assert not teller._inbox


def test_without_an_app_it_is_the_current_ones(real_app: App) -> None:
    real_app.set_current()

    assert EventDispatcher().app is real_app
