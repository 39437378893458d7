"""Canvases through real processes: what the words promise, and that nothing of it is lost or doubled by kills."""

import contextlib
import json
import random
import signal
from collections import Counter
from collections.abc import Iterator
from itertools import cycle, islice
from typing import TYPE_CHECKING

import psutil
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


CHORDS = """
import time

from proj import app, note
from qbroker import chain, chord, group

LATE = {"acks_late": True, "max_deliveries": 50}


def ran(self, word):
    note(f"{word} {self.request.id} {self.request.delivery_info.get('redelivered')}")


@app.task(**LATE)
def work(number):
    time.sleep(0.005)
    return number


@app.task(bind=True, max_retries=5, default_retry_delay=0.05, **LATE)
def flaky(self, number):
    if self.request.retries < 2:
        raise self.retry(exc=ValueError("not yet"))
    return number


@app.task(**LATE)
def fail(number):
    raise ValueError(number)


@app.task(bind=True, **LATE)
def body(self, numbers, word):
    ran(self, f"body {word}")
    return sum(numbers)


@app.task(bind=True, **LATE)
def told(self, task_id, word):
    ran(self, f"errback {word}")


def made(word, header):
    return chord(header, body.s(word).on_error(told.s(word=word)))


def canvas(n):
    kind = n % 5
    if kind == 0:
        return made(f"{n}", [work.s(i) for i in range(25)])
    if kind == 1:
        inner = made(f"{n}.inner", [work.s(i) for i in range(10)])
        return made(f"{n}", [inner, chain(work.s(1), work.s()), *(work.s(i) for i in range(5))])
    if kind == 2:
        return made(f"{n}", [*(work.s(i) for i in range(10)), fail.s(n)])
    if kind == 3:
        return made(f"{n}", [flaky.s(i) for i in range(10)])
    inner = made(f"{n}.inner", [work.s(1), fail.s(n), flaky.s(1)])
    return chain(made(f"{n}", [inner, work.s(1)]), work.s())
"""

CHORDS_COUNT = 100

KILLS_COUNT = 32

PUBLISHER = f"""
import json
from canvas import canvas
from proj import app
# The broker is away again and again, and may be found by chance only when it is about to be killed.
app.conf.broker_connection_timeout = 60
results = [canvas(n).delay() for n in range({CHORDS_COUNT})]
print("PUBLISHED")
found = [result.get(timeout=120, propagate=False) for result in results]
print("FOUND " + json.dumps([one if isinstance(one, int) else type(one).__name__ for one in found]))
"""

ACCOUNT = """
import json
import time
from proj import app
client = app.client()
deadline = time.monotonic() + 30
while True:
    queues = [[q.ready_count, q.scheduled_count, q.leased_count] for q in client.list_queues()]
    if not any(map(sum, queues)) or time.monotonic() > deadline:
        break
    time.sleep(0.05)
flows, after = [], ""
while True:
    page = client.list_workflows(after=after)
    flows += [[flow.message_count, flow.ended_count] for flow in page.workflows]
    after = page.next
    if not after:
        break
print("ACCOUNT " + json.dumps({"queues": queues, "flows": flows}))
"""


def values() -> Iterator[tuple[object, set[str]]]:
    """Of each of the chords what it ends in, and what runs of its bodies and errbacks."""
    for n in range(CHORDS_COUNT):
        yield (
            (sum(range(25)), {f"body {n}"}),
            (sum(range(10)) + 1 + sum(range(5)), {f"body {n}", f"body {n}.inner"}),
            ("ChordError", {f"errback {n}"}),
            (sum(range(10)), {f"body {n}"}),
            ("ChordError", {f"errback {n}", f"errback {n}.inner"}),
        )[n % 5]


def test_each_body_or_errback_is_called_once_whatever_is_killed(farm: "Farm") -> None:
    chance = random.Random(4)
    (farm.folder / "canvas.py").write_text(CHORDS)
    settings = {"QBROKER_GRACE_MS": "2000"}
    broker = farm.broker(**settings)
    listen = farm.broker_url.removeprefix("qbroker://")
    names = (f"w{number}@%h" for number in range(1_000))
    workers = [farm.worker("-c", "2", "-n", next(names), "-I", "canvas") for _ in range(2)]
    program = farm.python(PUBLISHER)
    program.wait_for("PUBLISHED", timeout=60)

    kills: Counter[str] = Counter()
    for victim in islice(cycle(["child", "broker", "child", "worker"]), KILLS_COUNT):
        try:
            program.popen_wait(chance.uniform(0.1, 0.5))
            break
        except TimeoutError:
            # Somewhere in the middle of whatever they are doing by now.
            pass
        if victim == "broker":
            broker.end(signal.SIGKILL)
            broker = farm.broker(listen, **settings)
        elif victim == "worker":
            workers.pop(0).end(signal.SIGKILL)
            workers.append(farm.worker("-c", "2", "-n", next(names), "-I", "canvas"))
        else:
            children = psutil.Process(workers[-1].pid).children(recursive=True)
            if children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    chance.choice(children).kill()
                    kills[victim] += 1
            continue
        kills[victim] += 1
    found = json.loads(program.wait_for(r"FOUND (.*)").group(1))
    account = json.loads(farm.python(ACCOUNT).wait_for(r"ACCOUNT (.*)", timeout=60).group(1))

    expected = list(values())
    assert found == [value for value, _ in expected]
    runs = [line.split() for line in farm.notes()]
    ids = {(what, word, task_id) for what, word, task_id, _ in runs}
    called = Counter(f"{what} {word}" for what, word, _ in ids)
    assert called == Counter(word for _, words in expected for word in words)
    # One that was killed in its middle runs again, and says so.
    firsts = Counter(tuple(run[:3]) for run in runs if run[3] == "False")
    assert set(firsts.values()) == {1}
    assert not any(map(sum, account["queues"])), account
    assert len(account["flows"]) == CHORDS_COUNT
    assert [flow for flow in account["flows"] if flow[0] != flow[1]] == []
    assert min(kills[victim] for victim in ("broker", "worker", "child")) >= 1, kills
