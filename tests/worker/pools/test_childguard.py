"""A child's deadlines: where the parent sees them, and what the signal does and does not."""

import mmap
import signal
import socket
from collections.abc import Iterator

import pytest

from qbroker.exceptions import SoftTimeLimitExceeded
from qbroker_worker.pools import frames
from qbroker_worker.pools.childguard import ChildGuard


class Scene:
    """A guard with a clock that a test sets, and the parent's view of it."""

    def __init__(self) -> None:
        self.now_ns = 1_000
        self.near, far = socket.socketpair()
        self.near.setblocking(False)
        self.far = far
        self.shared = mmap.mmap(-1, frames.SHARED_BYTES)
        self.guard = ChildGuard(self.shared, far, lambda: self.now_ns)

    def words(self, which: tuple[int, int]) -> tuple[int, int]:
        with memoryview(self.shared) as view, view[: frames.REGIONS[0]].cast("Q") as words:
            return words[which[0]], words[which[1]]


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    yield scene
    scene.near.close()
    scene.far.close()


def test_deadlines_lie_where_the_parent_looks_until_the_task_is_over(scene: Scene) -> None:
    scene.guard.begin(1.5, 2.0)
    deadlines, limits = scene.words(frames.DEADLINES), scene.words(frames.LIMITS)
    scene.guard.end()

    assert deadlines == (1_500_001_000, 2_000_001_000)
    assert limits == (1_500_000, 2_000_000)
    assert scene.words(frames.DEADLINES) == (0, 0)
    assert not scene.guard.is_overdue


def test_the_signal_raises_once_and_only_past_the_soft_deadline(scene: Scene) -> None:
    scene.guard.begin(1.0, None)

    scene.guard.interrupt(signal.SIGUSR1, None)
    scene.now_ns += 1_000_000_000
    with pytest.raises(SoftTimeLimitExceeded):
        scene.guard.interrupt(signal.SIGUSR1, None)
    scene.guard.interrupt(signal.SIGUSR1, None)


def test_a_signal_that_comes_after_the_end_does_nothing(scene: Scene) -> None:
    scene.guard.begin(1.0, None)
    scene.now_ns += 2_000_000_000
    scene.guard.end()

    scene.guard.interrupt(signal.SIGUSR1, None)


def test_a_child_past_its_hard_deadline_knows_that_it_is_about_to_be_killed(scene: Scene) -> None:
    scene.guard.begin(None, 1.0)
    scene.now_ns += 1_000_000_000

    scene.guard.end()

    assert scene.guard.is_overdue


def test_limits_that_begin_late_in_a_task_are_told_to_the_parent(scene: Scene) -> None:
    scene.guard.claimed_ns = scene.now_ns
    scene.guard.begin(1.0, None)
    with pytest.raises(BlockingIOError):
        scene.near.recv(100)
    scene.guard.end()

    scene.now_ns += 50_000_000
    scene.guard.begin(1.0, None)

    assert frames.BELL.unpack(scene.near.recv(100))[0] == frames.LIMITED
