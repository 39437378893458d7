"""What an event is."""

from qbroker.events import Event, group_from


def test_an_event_is_of_now_unless_it_says_otherwise() -> None:
    event = Event("task-sent", uuid="1")

    assert (event["type"], event["uuid"]) == ("task-sent", "1")
    assert event["timestamp"] > 1_600_000_000
    assert Event("task-sent", {"a": 1}, timestamp=5.0) == {
        "type": "task-sent",
        "a": 1,
        "timestamp": 5.0,
    }


def test_the_group_is_what_comes_first() -> None:
    assert [group_from(one) for one in ("task-sent", "custom-my-event", "plain")] == [
        "task",
        "custom",
        "plain",
    ]
