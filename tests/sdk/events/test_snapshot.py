"""Cameras."""

import threading
from pathlib import Path

import pytest

from qbroker import App
from qbroker.events.snapshot import Polaroid, evcam
from qbroker.events.state import State
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value
from tests.sdk.answering import Silence
from tests.sdk.conftest import Hire

WAIT_S = 10.0


def silent(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


class Camera(Polaroid):
    """Counts what it sees."""

    clear_after = True

    def __init__(self, *args: Value, **kwargs: Value) -> None:
        super().__init__(*args, **kwargs)
        self.seen: list[int] = []
        self.cleaned = threading.Event()
        self.taken = threading.Event()

    def on_shutter(self, state: State) -> None:
        self.seen.append(state.event_count)
        self.taken.set()

    def on_cleanup(self) -> None:
        self.cleaned.set()


def online(state: State, name: str = "a@host") -> None:
    state.event(
        {"type": "worker-online", "hostname": name, "timestamp": 1.0, "local_received": 1.0}
    )


def test_a_picture_is_of_what_was_heard_since_the_last() -> None:
    state = State()
    camera = Camera(state)

    online(state)
    camera.capture()
    camera.capture()

    assert camera.seen == [1, 0]


def test_pictures_are_taken_by_themselves_and_one_at_the_end() -> None:
    state = State()
    camera = Camera(state, freq=0.01, cleanup_freq=0.01)
    with camera:
        assert camera.taken.wait(WAIT_S)
        assert camera.cleaned.wait(WAIT_S)
    count = len(camera.seen)
    online(state)
    camera.cancel()

    assert count >= 2
    assert len(camera.seen) == count


def test_no_more_pictures_are_taken_than_is_allowed() -> None:
    now = [100.0]
    camera = Camera(State(), maxrate="2/s", monotonic=lambda: now[0])

    for at in (100.0, 100.2, 100.5, 100.9, 101.0):
        now[0] = at
        camera.shutter()

    assert len(camera.seen) == 3


def test_signals_are_sent_besides() -> None:
    sent: list[str] = []

    def shuttered(**_: Value) -> None:
        sent.append("shutter")

    def cleaned(**_: Value) -> None:
        sent.append("cleanup")

    Polaroid.shutter_signal.connect(shuttered)
    Polaroid.cleanup_signal.connect(cleaned)
    camera = Polaroid(State())
    camera.shutter()
    camera.cleanup()

    assert sent == ["shutter", "cleanup"]


def test_a_picture_that_fails_is_logged_and_the_next_is_taken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    again = threading.Event()

    class Broken(Polaroid):
        tries = 0

        def on_shutter(self, state: State) -> None:
            self.tries += 1
            if self.tries == 1:
                raise ValueError("no film")
            again.set()

    with Broken(State(), freq=0.01):
        assert again.wait(WAIT_S)

    assert "no film" in caplog.text


def test_a_camera_is_run_by_its_name(
    real_app: App, hire: Hire, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cameras_of_test.py").write_text(
        "from qbroker.events.snapshot import Polaroid\n"
        "seen = []\n"
        "class Counts(Polaroid):\n"
        "    def on_shutter(self, state):\n"
        "        seen.append(state.event_count)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    worker = hire("a@host", silent)
    thread = threading.Thread(
        target=lambda: evcam("cameras_of_test:Counts", freq=60, app=real_app, limit=2), daemon=True
    )
    thread.start()
    never = threading.Event()
    while not worker.is_wanted:
        assert not never.wait(0.01)
    worker.tell("worker-heartbeat")
    worker.tell("worker-heartbeat")
    thread.join(WAIT_S)

    import cameras_of_test  # type: ignore[import-not-found] # noqa: PLC0415 - made by this test

    assert cameras_of_test.seen == [2]


@pytest.mark.parametrize("name", ["nosuch:Camera", "qbroker.events.snapshot:Nosuch", "Camera"])
def test_a_camera_that_is_not_there_is_told(real_app: App, name: str) -> None:
    with pytest.raises(ImproperlyConfigured, match="there is no camera"):
        evcam(name, app=real_app)
