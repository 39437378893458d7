"""What is refused, each with an error of its own, while the connection goes on: broker, worker and caller."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

from qbroker import App, envelope
from qbroker.envelope import STAGES
from qbroker.exceptions import (
    ContentDisallowed,
    HeadersTooLarge,
    InvalidName,
    LimitExceeded,
    NestingTooDeep,
    OperationalError,
)
from qbroker.limits import Limit
from qbroker.serialization import Value
from qbroker_proto import checksum
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
        ({"queue": "a\x00b"}, InvalidName, r"^queue 'a\\x00b' contains U\+0000"),
        ({"task_id": "a\x00b"}, InvalidName, "^task_id "),
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


UNSAFE = ("\n", "\x1b", "\x7f", "\x9b", "\u2028", "\u2029", "\u202e", "\u2066", "\udcff")


@pytest.mark.parametrize("character", UNSAFE)
@pytest.mark.parametrize(
    ("option", "make"),
    [
        ("task name", lambda text: {"name": text}),
        ("task_id", lambda text: {"task_id": text}),
        ("queue", lambda text: {"queue": text}),
        ("exchange", lambda text: {"exchange": text, "routing_key": "k"}),
        ("routing_key", lambda text: {"exchange": "e", "routing_key": text}),
        ("shadow", lambda text: {"shadow": text}),
        ("root_id", lambda text: {"root_id": text}),
        ("parent_id", lambda text: {"parent_id": text}),
        ("reply_to", lambda text: {"reply_to": text}),
        ("correlation_id", lambda text: {"correlation_id": text}),
        ("label", lambda text: {"labels": {"user": text}}),
        ("unique_key", lambda text: {"unique_key": text}),
        ("fairness_key", lambda text: {"fairness_key": text}),
        ("limit key", lambda text: {"limits": [Limit(text, rate=1)]}),
        ("stamped_headers", lambda text: {"stamped_headers": [text], text: 1}),
    ],
)
def test_a_name_with_a_control_character_is_refused_before_it_is_sent(
    make_app: MakeApp, option: str, make: Callable[[str], dict[str, Value]], character: str
) -> None:
    # Nothing listens there: what is refused did not need the broker.
    app = make_app(broker="qbroker://127.0.0.1:1")
    given = {"name": "echo", **make(f"x{character}y")}

    with pytest.raises(InvalidName) as raised:
        _ = app.send_task(**given)

    expected = "label" if option == "stamped_headers" else option
    assert str(raised.value).startswith(f"{expected} ")
    assert f"contains U+{ord(character):04X}" in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("option", ["argsrepr", "kwargsrepr"])
def test_text_that_utf8_cannot_encode_is_refused_by_the_name_of_its_option(
    make_app: MakeApp, option: str
) -> None:
    app = make_app(broker="qbroker://127.0.0.1:1")
    given: dict[str, Value] = {option: "('\udcff',)"}

    with pytest.raises(InvalidName, match=rf"^{option} .* contains U\+DCFF, a lone surrogate"):
        _ = app.send_task("echo", **given)


QUESTIONS: Sequence[tuple[Callable[[Value], object], str]] = [
    (lambda client: client.read("\udcff"), "task_ids"),
    (lambda client: client.read_many(["a", "\udcff"]), "task_ids"),
    (lambda client: client.forget(["\udcff"]), "task_ids"),
    (lambda client: client.pause_queue("q", by="\udcff", why=""), "by"),
    (lambda client: client.pause_queue("q", by="", why="\udcff"), "why"),
    (lambda client: client.purge_queue("\udcff"), "queue"),
    (lambda client: client.show_schedule("\udcff"), "name"),
    (lambda client: client.put_schedule(name="\udcff"), "name"),
    (lambda client: client.declare_exchange("\udcff", "direct"), "name"),
]


@pytest.mark.parametrize(("ask", "argument"), QUESTIONS, ids=range(len(QUESTIONS)))
def test_a_question_with_text_that_utf8_cannot_encode_names_its_argument(
    make_app: MakeApp, ask: Callable[[Value], object], argument: str
) -> None:
    client = make_app(broker="qbroker://127.0.0.1:1").client()

    with pytest.raises(InvalidName, match=rf"^{argument} .* contains U\+DCFF"):
        ask(client)


def test_names_of_any_language_are_names(app: App, real_broker: RealBroker) -> None:
    name = "Größe π 你好 👍 שלום مرحبا"

    result = app.send_task("echo", (1,), task_id=name, queue=name, shadow=name, labels={"a": name})

    assert app.client().show_task(result.id).queue == name


@contextlib.contextmanager
def flipping(port: int, marker: bytes) -> Iterator[int]:
    """A proxy before the port that flips one bit of the first marker that a client sends; its own port."""
    server = socket.create_server(("127.0.0.1", 0))
    is_flipped = threading.Event()
    ends: list[socket.socket] = [server]
    threads: list[threading.Thread] = []

    def start(target: Callable[..., None], *args: object) -> None:
        threads.append(threading.Thread(target=target, args=args))
        threads[-1].start()

    def carry(source: socket.socket, target: socket.socket, flips: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                if flips and marker in data and not is_flipped.is_set():
                    is_flipped.set()
                    data = data.replace(marker, bytes((marker[0] ^ 1,)) + marker[1:], 1)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = server.accept()
                far = socket.create_connection(("127.0.0.1", port))
                ends.extend((near, far))
                start(carry, near, far, True)
                start(carry, far, near, False)

    start(serve)
    yield int(server.getsockname()[1])
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
    for thread in threads:
        thread.join()
    for end in ends:
        end.close()


def test_a_message_that_is_damaged_on_its_way_is_sent_again(
    make_app: MakeApp, real_broker: RealBroker
) -> None:
    with flipping(int(real_broker.url.rpartition(":")[2].strip("/")), b"4711") as port:
        app = make_app(broker=f"qbroker://127.0.0.1:{port}", backend="qbroker://")
        app.task(name="echo")(lambda value: value)

        result = app.send_task("echo", (4711,))
        worker = ToyWorker(app, real_broker.url)
        worker.work()
        worker.leave()

        assert result.get(timeout=10) == 4711


def test_a_damaged_message_is_refused_so_that_it_can_be_sent_again(app: App) -> None:
    raw = checksum.sealed(
        Message(id="m", task="echo", queue="celery", body=b"[[1],{},{}]").SerializeToString()
    )
    damaged = raw.replace(b"[1]", b"[3]")

    with pytest.raises(OperationalError, match="no confirm within"):
        app.client().wait(app.client().submit((damaged,)))
    assert app.client().read("m").state == "PENDING"
    assert app.client().publish((raw,)) == []


def test_headers_that_another_client_did_not_check_are_refused_by_the_broker(app: App) -> None:
    large = json.dumps({"a": "x" * 1_000_000})
    raw = Message(id="m", task="echo", queue="celery", headers=large).SerializeToString()

    (refusal,) = app.client().publish((raw,))

    assert "they may have 65536" in refusal.reason  # type: ignore[union-attr] # it is one
    _ = app.send_task("echo", ("after",))
