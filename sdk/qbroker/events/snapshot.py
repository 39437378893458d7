"""Cameras: take a picture of the state at times, instead of looking at each event.

class Counts(Polaroid):
clear_after = True

def on_shutter(self, state):
print(state.event_count, "events since the last picture")

with Counts(state, freq=5.0):
receiver.capture()
"""

import importlib
import logging
import threading
from collections.abc import Callable
from types import TracebackType
from typing import ClassVar, Self

from qbroker import _state, clock
from qbroker.events.state import State
from qbroker.exceptions import ImproperlyConfigured
from qbroker.limits import per_second
from qbroker.serialization import Value
from qbroker.signals import Signal

__all__ = ["Polaroid", "evcam"]

logger = logging.getLogger("qbroker.evcam")


class _Every:
    """Calls something every so many seconds, on a thread, until it is cancelled."""

    def __init__(self, seconds: float, call: Callable[[], Value]) -> None:
        self._seconds = seconds
        self._call = call
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="qbroker-camera", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._is_over.wait(self._seconds):
            try:
                self._call()
            except Exception:
                logger.exception("A picture could not be taken.")

    def cancel(self) -> None:
        """Call no more; what is under way is waited for."""
        self._is_over.set()
        if self._thread is not threading.current_thread():
            self._thread.join()


class Polaroid:
    """A camera: `on_shutter(state)` is called every `freq` seconds, and no event is taken in meanwhile."""

    shutter_signal: ClassVar[Signal] = Signal(name="shutter_signal")
    cleanup_signal: ClassVar[Signal] = Signal(name="cleanup_signal")
    clear_after = False
    """Forget everything after each picture."""

    def __init__(
        self,
        state: State,
        freq: float = 1.0,
        maxrate: str | float | None = None,
        cleanup_freq: float = 3600.0,
        timer: Value = None,
        app: Value = None,
        monotonic: Callable[[], float] = clock.monotonic,
    ) -> None:
        self.app = app or _state.get_current_app()
        self.state = state
        self.freq = freq
        self.cleanup_freq = cleanup_freq
        self.logger = logger
        self._monotonic = monotonic
        per_s = per_second(maxrate)
        self._least_s = 1 / per_s if per_s else 0.0
        self._next_s = 0.0
        self._timers: list[_Every] = []

    def install(self) -> None:
        """Begin to take pictures."""
        self._timers = [
            _Every(self.freq, self.capture),
            _Every(self.cleanup_freq, self.cleanup),
        ]

    def on_shutter(self, state: State) -> Value:
        """Take a picture: for subclasses."""

    def on_cleanup(self) -> Value:
        """Tidy up, once in `cleanup_freq` seconds: for subclasses."""

    def cleanup(self) -> None:
        """Tidy up now."""
        self.cleanup_signal.send(self.state)
        self.on_cleanup()

    def shutter(self) -> None:
        """Take a picture now, unless there were too many lately (`maxrate`)."""
        now_s = self._monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._least_s
        self.shutter_signal.send(self.state)
        self.on_shutter(self.state)

    def capture(self) -> None:
        """Take a picture while nothing changes."""
        self.state.freeze_while(self.shutter, clear_after=self.clear_after)

    def cancel(self) -> None:
        """Take one more picture, and no others."""
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.cancel()
        if timers:
            self.capture()

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.cancel()


def evcam(
    camera: str | type[Polaroid],
    freq: float = 1.0,
    maxrate: str | float | None = None,
    app: Value = None,
    limit: int | None = None,
    **_: Value,
) -> None:
    """Take pictures with a camera, by its class or where that is ("proj.cameras:Counts"), until it is ended or `limit` events came."""
    app = app or _state.get_current_app()
    class_ = _class_of(camera) if isinstance(camera, str) else camera
    state = app.events.State()
    with class_(state, freq=freq, maxrate=maxrate, app=app):
        app.events.Receiver(handlers={"*": state.event}).capture(limit=limit)


def _class_of(path: str) -> type[Polaroid]:
    module, colon, name = path.partition(":")
    if not colon:
        module, _, name = path.rpartition(".")
    try:
        found: type[Polaroid] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as exc:
        raise ImproperlyConfigured(f"there is no camera {path!r}: {exc}") from exc
    return found
