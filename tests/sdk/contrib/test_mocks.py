"""Messages as Celery's workers get them."""

import datetime as dt
import json

import pytest

from qbroker import App
from qbroker.contrib.testing.mocks import (
    ContextMock,
    TaskMessage,
    TaskMessage1,
    task_message_from_sig,
)


def test_a_message_of_protocol_2_has_the_call_in_its_headers() -> None:
    message = TaskMessage("proj.add", "i", (1, 2), {"z": 3}, chain=[], retries=2)

    assert message.headers == {"id": "i", "task": "proj.add", "shadow": None, "retries": 2}
    assert message.payload == ((1, 2), {"z": 3}, {"callbacks": None, "errbacks": None, "chain": []})
    assert json.loads(message.body) == [[1, 2], {"z": 3}, message.payload[2]]
    assert (message.content_type, message.content_encoding) == ("application/json", "utf-8")
    assert message.decode() == message.payload


def test_a_message_of_protocol_1_has_it_in_its_body() -> None:
    message = TaskMessage1("proj.add", args=(1,), retries=2)

    payload = json.loads(message.body)
    assert message.headers == {}
    assert (payload["task"], payload["args"], payload["retries"]) == ("proj.add", [1], 2)
    assert payload["id"] == message.properties["correlation_id"]


def test_a_signatures_message_has_its_options_as_headers() -> None:
    app = App("proj", set_as_current=False)
    add = app.task(name="proj.add")(lambda x, y: x + y)
    sig = add.s(1, 2).set(countdown=60, expires=90, priority=3)
    sig.link(add.s(4))

    message = task_message_from_sig(app, sig)

    eta, expires = (dt.datetime.fromisoformat(message.headers[it]) for it in ("eta", "expires"))
    assert message.headers["task"] == "proj.add"
    assert message.headers["id"] == sig.id
    assert message.headers["priority"] == 3
    assert 29 < (expires - eta).total_seconds() < 31
    assert message.payload[0] == (1, 2)
    assert message.payload[2]["callbacks"][0]["task"] == "proj.add"
    assert sig.options["countdown"] == 60


def test_a_mock_of_a_context_is_itself_within_and_holds_no_exception_back() -> None:
    mock = ContextMock()

    with mock as within:
        within.call()

    assert within is mock
    mock.call.assert_called_once_with()
    with pytest.raises(KeyError), mock:
        raise KeyError
