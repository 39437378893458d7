"""What SDK tests share: a fake broker and the real one, and apps that are gone after the test."""

from collections.abc import Callable, Iterator

import pytest

from qbroker import App, _state
from qbroker.serialization import Value
from tests.sdk.answering import AnsweringWorker, Answers
from tests.sdk.fake_broker import FakeBroker, echo
from tests.sdk.real_broker import RealBroker

MakeApp = Callable[..., App]
Hire = Callable[..., AnsweringWorker]


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    """A broker that ends each task with its first argument."""
    started = FakeBroker(run=echo).start()
    yield started
    started.stop()


@pytest.fixture
def make_app() -> Iterator[MakeApp]:
    """Makes apps, and closes them in the end."""
    made: list[App] = []

    def make(main: str = "proj", **options: Value) -> App:
        app = App(main, **options)
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()
    _state.set_current_app(None)


@pytest.fixture
def app(broker: FakeBroker, make_app: MakeApp) -> App:
    """An app that keeps results in the fake broker."""
    return make_app(broker=broker.url, backend="qbroker://")


@pytest.fixture
def real_broker() -> Iterator[RealBroker]:
    """The broker itself, serving from memory."""
    started = RealBroker().start()
    yield started
    started.stop()


@pytest.fixture
def real_app(real_broker: RealBroker, make_app: MakeApp) -> App:
    """An app that keeps results in it."""
    return make_app(broker=real_broker.url, backend="qbroker://")


@pytest.fixture
def hire(real_broker: RealBroker) -> Iterator[Hire]:
    """Makes workers that are connected to the real broker and answer as they are told, until the test ends."""
    hired: list[AnsweringWorker] = []

    def hire(name: str, answers: Answers, **options: Value) -> AnsweringWorker:
        worker = AnsweringWorker(real_broker.url, name, answers, **options)
        hired.append(worker)
        return worker

    yield hire
    for worker in hired:
        worker.leave()
