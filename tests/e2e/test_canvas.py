"""Canvases through real processes: what the words promise, and that nothing of it is lost or doubled by kills."""

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm

pytestmark = pytest.mark.e2e

CANVAS = """
from proj import app, note


@app.task
def total(numbers):
    return sum(numbers)


@app.task(acks_late=True)
def total_once(numbers):
    note("body")
    return sum(numbers)


@app.task
def fail(*args):
    raise ValueError("no")


@app.task
def told(request, exc, traceback):
    note(f"told {type(exc).__name__}")


@app.task
def told_id(task_id):
    note("told an id")


@app.task(bind=True)
def spread(self, count):
    from qbroker import group
    from proj import add
    raise self.replace(group(add.s(i, 1) for i in range(count)))
"""


def test_values_go_their_way(farm: "Farm") -> None:
    (farm.folder / "canvas.py").write_text(CANVAS)
    farm.broker()
    farm.worker("-c", "2", "-I", "canvas")

    program = farm.python(
        """
from qbroker import chain, chord, group
from proj import add
from canvas import spread, total
canvases = [
    chain(add.s(1, 1), add.s(2), add.s(3)),
    group(add.s(i, i) for i in range(5)),
    chord([add.s(i, i) for i in range(5)], total.s()),
    add.s(1, 1) | group(add.s(1) | add.s(2), add.s(3)) | total.s() | add.s(4),
    chord([chord([add.s(1, 1), add.s(2, 2)], total.s()), add.s(3, 3)], total.s()),
    chord([spread.s(3) | total.s(), add.s(1, 1)], total.s()),
    chain(add.si(0, 1) for _ in range(100)),
]
print("VALUES", [sig.delay().get(timeout=30) for sig in canvases])
"""
    )

    program.wait_for(r"VALUES \[7, \[0, 2, 4, 6, 8\], 20, 14, 12, 8, 1\]", timeout=60)


def test_errbacks_are_called_once_and_the_first_error_is_raised(farm: "Farm") -> None:
    (farm.folder / "canvas.py").write_text(CANVAS)
    farm.broker()
    farm.worker("-c", "2", "-I", "canvas")

    program = farm.python(
        """
from qbroker import chain, chord
from proj import add
from canvas import fail, told, told_id, total
result = chord([add.s(1, 1), fail.s(), fail.s()], total.s().on_error(told.s())).delay()
try:
    result.get(timeout=30)
except ValueError:
    print("RAISED", type(result.get(propagate=False)).__name__)
sig = chain(fail.s(), add.s(1), add.s(2))
sig.link_error(told_id.s())
print("STATE", type(sig.delay().get(timeout=30, propagate=False)).__name__)
"""
    )
    program.wait_for("RAISED ChordError", timeout=60)
    program.wait_for("STATE ValueError", timeout=60)
    farm.python(
        """
import time
from proj import NOTES
while len(open(NOTES).read().splitlines()) < 2:
    time.sleep(0.02)
print("NOTED")
"""
    ).wait_for("NOTED", timeout=60)

    assert sorted(farm.notes()) == ["told ChordError", "told an id"]


def test_every_chord_comes_to_its_value_whatever_is_killed(farm: "Farm") -> None:
    (farm.folder / "canvas.py").write_text(CANVAS)
    broker = farm.broker()
    listen = farm.broker_url.removeprefix("qbroker://")
    workers = [farm.worker("-c", "2", "-n", f"{name}@%h", "-I", "canvas") for name in ("a", "b")]
    program = farm.python(
        """
from qbroker import chord
from proj import mark_late
from canvas import total_once
sigs = [
    chord([mark_late.s(n * 20 + i) for i in range(20)], total_once.s()) for n in range(20)
]
results = [sig.delay() for sig in sigs]
print("PUBLISHED")
print("SUMS", [result.get(timeout=90) for result in results]
      == [sum(n * 20 + i for i in range(20)) for n in range(20)])
"""
    )
    program.wait_for("PUBLISHED", timeout=60)

    workers[0].end(signal.SIGKILL)
    broker.end(signal.SIGKILL)
    farm.broker(listen)
    farm.worker("-c", "2", "-n", "c@%h", "-I", "canvas")

    program.wait_for("SUMS True", timeout=120)
    # A body may run again where its worker was killed in the middle of it, as it acknowledges late; none is left out.
    assert farm.notes().count("body") >= 20
