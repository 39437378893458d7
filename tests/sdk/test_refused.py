"""What is refused, each with an error of its own, while the connection goes on: broker, worker and caller."""

import json

import pytest

from qbroker import App, envelope
from qbroker.envelope import STAGES
from qbroker.exceptions import (
    ContentDisallowed,
    HeadersTooLarge,
    InvalidName,
    LimitExceeded,
    NestingTooDeep,
)
from qbroker.serialization import Value
from qbroker_proto.v1.message_pb2 import Message
from tests.sdk.conftest import MakeApp
from tests.sdk.real_broker import RealBroker, ToyWorker

DEEP: Value = json.loads("[" * 100 + "]" * 100)


@pytest.fixture
def app(real_broker: RealBroker, make_app: MakeApp) -> App:
    app = make_app(broker=real_broker.url, backend="qbroker://", unpacked_bytes_max=100_000)
    app.task(name="echo")(lambda value: value)
    return app


def bomb() -> dict[str, Value]:
    return envelope.write([["x" * 1_000_000], {}, {}], "json", "zstd")


def pickled() -> dict[str, Value]:
    return envelope.write([["x"], {}, {}], "pickle")


def deep() -> dict[str, Value]:
    body = json.dumps([[DEEP], {}, {}]).encode()
    return {"content_type": "application/json", "content_encoding": "utf-8", "body": body}


@pytest.mark.parametrize(
    ("make", "error"),
    [(bomb, LimitExceeded), (pickled, ContentDisallowed), (deep, NestingTooDeep)],
)
def test_a_body_that_must_not_be_read_is_kept_as_a_dead_letter_and_its_neighbours_run(
    app: App, real_broker: RealBroker, make: Value, error: type[Exception]
) -> None:
    worker = ToyWorker(app, real_broker.url)
    raw = Message(id="bad", task="echo", queue="celery", **make()).SerializeToString()

    assert app.client().publish((raw,)) == []
    worker.work()
    after = app.send_task("echo", ("still here",))
    worker.work()
    worker.leave()

    info = app.client().show_task("bad")
    assert (STAGES[info.stage], info.detail.partition(":")[0]) == ("dead", error.__name__)
    with pytest.raises(error):
        app.AsyncResult("bad").get(timeout=5)
    assert after.get(timeout=5) == "still here"


@pytest.mark.parametrize(
    ("options", "error", "told"),
    [
        ({"headers": {"a": "x" * 1_000_000}}, HeadersTooLarge, "they may have 65536. Pass data as"),
        ({"app_id": "x" * 1_000_000}, HeadersTooLarge, "the properties of a call of 'echo' have"),
        ({"args": (DEEP,)}, NestingTooDeep, "nested more than 100 deep"),
        ({"queue": "a\x00b"}, InvalidName, r"queue name 'a\\x00b' contains a NUL"),
        ({"task_id": "a\x00b"}, InvalidName, "message id"),
        ({"unique_key": "\x00"}, ValueError, "unique_key"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_meant_raises_and_the_connection_goes_on(
    app: App, options: dict[str, Value], error: type[Exception], told: str
) -> None:
    _ = app.send_task("echo", ("before",))

    with pytest.raises(error, match=told):
        _ = app.send_task("echo", **options)
    _ = app.send_task("echo", ("after",))

    (celery,) = app.client().list_queues()
    assert celery.ready_count == 2


def test_headers_that_another_client_did_not_check_are_refused_by_the_broker(app: App) -> None:
    large = json.dumps({"a": "x" * 1_000_000})
    raw = Message(id="m", task="echo", queue="celery", headers=large).SerializeToString()

    (refusal,) = app.client().publish((raw,))

    assert "they may have 65536" in refusal.reason  # type: ignore[union-attr] # it is one
    _ = app.send_task("echo", ("after",))
