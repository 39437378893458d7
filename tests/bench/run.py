"""What qbroker costs on this machine: `make bench`, or `python tests/bench/run.py --help`.

Every run has a fresh broker in a folder of its own. The broker syncs each commit, results are kept, the
arguments are about 64 bytes of JSON. The table shows medians; nothing is asserted, because a slow
machine is no fault.
"""

import argparse
import importlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psutil

# Run as a program, this file's folder comes first on the path; the tests' helpers are two above.
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from qbroker import App, chain, chord, group  # noqa: E402 - needs the path above
from qbroker.app.amqp import topology_of  # noqa: E402 - needs the path above
from qbroker.limits import Limit  # noqa: E402 - needs the path above
from qbroker.messaging import Exchange, Queue, binding  # noqa: E402 - needs the path above
from qbroker.testing import LocalBroker  # noqa: E402 - needs the path above
from tests.bench import attacks, wire  # noqa: E402 - needs the path above
from tests.bench.tasks import (  # noqa: E402 - needs the path above
    app,
    give,
    late_by,
    measure,
    noop,
    note_lateness,
    untold,
)
from tests.docs import programs  # noqa: E402 - needs the path above
from tests.docs.programs import Program  # noqa: E402 - needs the path above

TEXT = "x" * 56
"""With its quotes and brackets, the arguments are about 64 bytes of JSON."""

BATCH = 1_000
REPEATS = 10
"""How often what is over in a moment is done, in each run."""
LONG_S = 600.0
NEWS = Exchange("news", type="fanout")
SERIALIZERS = ("json", "msgpack", "pickle")
COMPRESSIONS = ("zstd", "gzip", "bzip2", "lzma", "brotli")
Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much each case does."""

    seconds: float
    end_to_end: int
    round_trips: int
    queued: int
    soak: int


class Bench:
    """A broker on a folder of its own, and the means to measure it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.env = programs.environment(
            port, PYTHONPATH=f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        )

    @contextmanager
    def broker(self) -> Iterator[Program]:
        """The broker, listening."""
        argv = ("qbroker", "serve", "--data-dir", str(self.folder / "data"))
        with Program(argv, cwd=self.folder, env=self.env) as program:
            program.wait_for(programs.BROKER_READY)
            yield program
            program.stop()

    @contextmanager
    def worker(self, *options: str) -> Iterator[Program]:
        """A worker with two processes, started but perhaps not ready."""
        argv = ("qbroker", "worker", "-A", "tests.bench.tasks:app", "-c", "2", "-l", "WARNING")
        with Program((*argv, *options), cwd=self.folder, env=self.env) as program:
            yield program
            program.stop()

    def fill(self, count: int, **options: float) -> str:
        """Queue `count` no-ops with these options; the id of the last."""
        last = ""
        for start in range(0, count, BATCH):
            size = min(BATCH, count - start)
            calls: list[tuple[object, ...]] = [(noop, (TEXT,), {}, options)] * size
            last = app.send_many(calls)[-1].id
        return last


def cpu_s(program: Program) -> float:
    """CPU the program and all it started have used, ended children included."""
    root = psutil.Process(program.process.pid)
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system + times.children_user + times.children_system
    return total


def anonymous_mb(program: Program) -> float:
    """Memory of the process that is not pages of a file: `RssAnon`."""
    return anonymous_mb_of(program.process.pid)


def anonymous_mb_of(pid: int) -> float:
    """The same, of any process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def calls_a_second(call: Callable[[], object], *, threads: int, seconds: float) -> float:
    """How often `call` is done by so many threads at once, after a warm-up."""
    call()
    counts = [0] * threads
    barrier = threading.Barrier(threads + 1)
    ends = [0.0]

    def work(number: int) -> None:
        barrier.wait()
        while time.perf_counter() < ends[0]:
            call()
            counts[number] += 1

    crew = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for member in crew:
        member.start()
    started = time.perf_counter()
    ends[0] = started + seconds
    barrier.wait()
    for member in crew:
        member.join()
    return sum(counts) / (time.perf_counter() - started)


def publish_1(bench: Bench, sizes: Sizes) -> Figures:
    """One thread, each call confirmed."""
    with bench.broker():
        rate = calls_a_second(lambda: noop.delay(TEXT), threads=1, seconds=sizes.seconds)
    return {"rate_per_s": rate}


def publish_16(bench: Bench, sizes: Sizes) -> Figures:
    """Sixteen threads, each call confirmed."""
    with bench.broker():
        rate = calls_a_second(lambda: noop.delay(TEXT), threads=16, seconds=sizes.seconds)
    return {"rate_per_s": rate}


def publish_many(bench: Bench, sizes: Sizes) -> Figures:
    """`send_many` by 1,000, each batch confirmed."""
    with bench.broker():
        rate = calls_a_second(lambda: bench.fill(BATCH), threads=1, seconds=sizes.seconds)
    return {"rate_per_s": rate * BATCH}


def end_to_end(bench: Bench, sizes: Sizes) -> Figures:
    """No-ops queued beforehand, prefork -c 2, from the first result to the last."""
    with bench.broker() as broker:
        first, last = bench.fill(1), bench.fill(sizes.end_to_end - 1)
        with bench.worker() as worker:
            app.AsyncResult(first).get(timeout=LONG_S)
            started, used = time.perf_counter(), cpu_s(broker) + cpu_s(worker)
            # Two processes end them nearly in order; what is still under way is a few of many.
            app.AsyncResult(last).get(timeout=LONG_S)
            seconds = time.perf_counter() - started
            used = cpu_s(broker) + cpu_s(worker) - used
    return {
        "rate_per_s": sizes.end_to_end / seconds,
        "cpu_us_per_task": used / sizes.end_to_end * 1e6,
    }


def round_trip(bench: Bench, sizes: Sizes) -> Figures:
    """`delay().get()` on an idle system."""
    with bench.broker(), bench.worker():
        for _ in range(20):
            noop.delay(TEXT).get(timeout=LONG_S)
        taken_ms = []
        for _ in range(sizes.round_trips):
            started = time.perf_counter()
            noop.delay(TEXT).get(timeout=LONG_S)
            taken_ms.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(taken_ms, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


def queued(bench: Bench, sizes: Sizes) -> Figures:
    """Many messages waiting: what they cost the broker's memory, and its restart."""
    with bench.broker() as broker:
        # The first batches fill pools and caches that are there to stay.
        bench.fill(10 * BATCH)
        before = anonymous_mb(broker)
        started = time.perf_counter()
        bench.fill(sizes.queued - 10 * BATCH)
        rate = (sizes.queued - 10 * BATCH) / (time.perf_counter() - started)
        grown = anonymous_mb(broker) - before
    started = time.perf_counter()
    argv = ("qbroker", "serve", "--data-dir", str(bench.folder / "data"))
    with Program(argv, cwd=bench.folder, env=bench.env) as broker:
        target = f"127.0.0.1:{bench.port}"
        wire.first_delivery(target, queue_name="celery", task=noop.name, timeout_s=LONG_S)
        restart_s = time.perf_counter() - started
        broker.stop()
    data = sum(path.stat().st_blocks * 512 for path in (bench.folder / "data").rglob("*"))
    return {
        "grown_mb": grown,
        "restart_s": restart_s,
        "rate_per_s": rate,
        "disk_bytes_per_message": data / sizes.queued,
    }


def scheduled(bench: Bench, sizes: Sizes) -> Figures:
    """Many tasks that are not due: memory, rate beside unscheduled ones, and how quickly one is found."""
    count = sizes.queued - 20 * BATCH
    with bench.broker() as broker:
        bench.fill(10 * BATCH)
        bench.fill(10 * BATCH, countdown=36_000)
        before = anonymous_mb(broker)
        started = time.perf_counter()
        last = bench.fill(count // 2, countdown=36_000)
        scheduled_s = time.perf_counter() - started
        started = time.perf_counter()
        queued_last = bench.fill(count // 2)
        queued_s = time.perf_counter() - started
        grown = anonymous_mb(broker) - before
        client = app.client()
        explain_ms = median_ms(lambda: client.explain(queued_last))
        page_ms = median_ms(lambda: client.list_tasks(queue="celery", limit=100))
        started = time.perf_counter()
        app.AsyncResult(last).revoke()
        cancel_ms = (time.perf_counter() - started) * 1e3
    return {
        "grown_mb": grown,
        "rate_ratio": queued_s / scheduled_s,
        "explain_ms": explain_ms,
        "page_ms": page_ms,
        "cancel_ms": cancel_ms,
    }


def lateness(bench: Bench, sizes: Sizes) -> Figures:
    """20,000 tasks due over 20 seconds: how late they run, and whether any is early."""
    del sizes
    count, span_s = 20_000, 20.0
    with bench.broker(), bench.worker():
        for _ in range(50):
            late_by.delay(0.0).get(timeout=LONG_S)
        start = time.time() + 6.0
        dues = [start + n * span_s / count for n in range(count)]
        with app.pipeline():
            results = [
                late_by.apply_async((due,), eta=datetime.fromtimestamp(due, UTC)) for due in dues
            ]
        late_ms = sorted(result.get(timeout=LONG_S) * 1e3 for result in results)
    return {
        "earliest_ms": late_ms[0],
        "p50_ms": late_ms[count // 2],
        "p99_ms": late_ms[int(count * 0.99)],
    }


def throttled(bench: Bench, sizes: Sizes) -> Figures:
    """What free tasks lose beside 1,000 that a limit holds back, in the same queue."""
    rates = []
    for held_back in (0, 1_000):
        with bench.broker():
            limit = Limit("bench", rate="1/h")
            app.send_many([(noop, (TEXT,), {}, {"limits": [limit]}) for _ in range(held_back)])
            first, last = bench.fill(1), bench.fill(sizes.end_to_end - 1)
            with bench.worker():
                app.AsyncResult(first).get(timeout=LONG_S)
                started = time.perf_counter()
                app.AsyncResult(last).get(timeout=LONG_S)
                rates.append(sizes.end_to_end / (time.perf_counter() - started))
        shutil.rmtree(bench.folder / "data")
    return {"free_per_s": rates[0], "beside_per_s": rates[1], "ratio": rates[1] / rates[0]}


def periodic(bench: Bench, sizes: Sizes) -> Figures:
    """10,000 periodic entries: what they cost while none is due, and how late tasks run of which 500 are due a second."""
    count, due, seconds = 10_000, 500, max(sizes.seconds, 3.0)
    bench.env["BENCH_NOTES"] = str(bench.folder / "notes")
    idle = {f"idle-{n}": {"task": noop.name, "schedule": 36_000.0} for n in range(count)}
    ticking = [f"due-{n}" for n in range(due)]
    with bench.broker() as broker:
        without = idle_cpu_ms(broker, seconds)
        app.conf.beat_schedule = idle
        started = time.perf_counter()
        app.schedules.declare()
        declared_s = time.perf_counter() - started
        grown = idle_cpu_ms(broker, seconds) - without
        with bench.worker():
            noop.delay(TEXT).get(timeout=LONG_S)
            # An interval counts from when its entry was made, so these are due all over the second.
            for name in ticking:
                app.schedules.put(name, task=note_lateness.name, schedule=1.0)
                threading.Event().wait(0.5 / due)
            apart = lateness_of_ticks(bench, broker, seconds)
            for name in ticking:
                app.schedules.remove(name)
            # And these, which are made together, at the same moment of it.
            app.conf.beat_schedule = idle | {
                name: {"task": note_lateness.name, "schedule": 1.0} for name in ticking
            }
            app.schedules.declare()
            together = lateness_of_ticks(bench, broker, seconds)
    return {
        "declared_s": declared_s,
        "idle_cpu_ms_per_s": grown,
        **apart,
        **{f"at_once_{name}": value for name, value in together.items()},
    }


def lateness_of_ticks(bench: Bench, broker: Program, seconds: float) -> Figures:
    """How late tasks of periodic entries run, and what they cost the broker."""
    notes = bench.folder / "notes"
    threading.Event().wait(2.0)
    size, used = notes.stat().st_size, cpu_s(broker)
    threading.Event().wait(seconds)
    used = cpu_s(broker) - used
    late_ms = sorted(float(line) for line in notes.read_bytes()[size:].split())
    return {
        "fired_per_s": len(late_ms) / seconds,
        "earliest_ms": late_ms[0],
        "p50_ms": late_ms[len(late_ms) // 2],
        "p99_ms": late_ms[int(len(late_ms) * 0.99)],
        "cpu_ms_per_s": used / seconds * 1e3,
    }


def idle_cpu_ms(program: Program, seconds: float) -> float:
    """CPU that a program uses a second while nothing happens."""
    threading.Event().wait(1.0)
    used = cpu_s(program)
    threading.Event().wait(seconds)
    return (cpu_s(program) - used) / seconds * 1e3


def in_process(bench: Bench, sizes: Sizes) -> Figures:
    """The broker inside the test's process: how soon it is there, and `delay().get()` through it and a worker's thread."""
    del bench
    started = time.perf_counter()
    importlib.import_module("qbroker_server.inprocess")
    import_ms = (time.perf_counter() - started) * 1e3
    starts_ms = []
    for _ in range(20):
        started = time.perf_counter()
        with LocalBroker() as broker:
            starts_ms.append((time.perf_counter() - started) * 1e3)
    taken_ms = []
    with LocalBroker() as broker, App("inside", broker=broker.url, backend="qbroker://") as inside:
        double = inside.task(name="double")(lambda x: 2 * x)
        with broker.worker(inside):
            for n in range(20 + sizes.round_trips):
                started = time.perf_counter()
                double.delay(n).get(timeout=LONG_S)
                taken_ms.append((time.perf_counter() - started) * 1e3)
    cuts = statistics.quantiles(taken_ms[20:], n=100)
    return {
        "import_ms": import_ms,
        "first_start_ms": starts_ms[0],
        "start_ms": statistics.median(starts_ms),
        "p50_ms": cuts[49],
        "p99_ms": cuts[98],
    }


def group_1000(bench: Bench, sizes: Sizes) -> Figures:
    """A group of 1,000 no-ops: to publish it, and to have all results."""
    del sizes
    apply_ms, join_ms = [], []
    with bench.broker(), bench.worker():
        group(noop.s(TEXT) for _ in range(BATCH))().join(timeout=LONG_S)
        for _ in range(REPEATS):
            sig = group(noop.s(TEXT) for _ in range(BATCH))
            started = time.perf_counter()
            result = sig()
            applied = time.perf_counter()
            result.join(timeout=LONG_S)
            apply_ms.append((applied - started) * 1e3)
            join_ms.append((time.perf_counter() - applied) * 1e3)
    total_ms = [sum(both) for both in zip(apply_ms, join_ms, strict=True)]
    return {
        "apply_ms": statistics.median(apply_ms),
        "join_ms": statistics.median(join_ms),
        "total_ms": statistics.median(total_ms),
    }


def chord_1000(bench: Bench, sizes: Sizes) -> Figures:
    """A chord of 1,000 no-ops: from its being published to its body's result."""
    del sizes
    apply_ms, body_ms = [], []
    with bench.broker(), bench.worker():
        chord([noop.s(TEXT) for _ in range(BATCH)], noop.s())().get(timeout=LONG_S)
        for _ in range(REPEATS):
            sig = chord([noop.s(TEXT) for _ in range(BATCH)], noop.s())
            started = time.perf_counter()
            result = sig()
            applied = time.perf_counter()
            result.get(timeout=LONG_S)
            apply_ms.append((applied - started) * 1e3)
            body_ms.append((time.perf_counter() - applied) * 1e3)
    return {"apply_ms": statistics.median(apply_ms), "body_ms": statistics.median(body_ms)}


def chain_100(bench: Bench, sizes: Sizes) -> Figures:
    """A chain of 100 no-ops, each called with what the one before returned."""
    del sizes
    taken_ms = []
    with bench.broker(), bench.worker():
        chain(noop.s() for _ in range(100)).delay(TEXT).get(timeout=LONG_S)
        for _ in range(REPEATS):
            sig = chain(noop.s() for _ in range(100))
            started = time.perf_counter()
            sig.delay(TEXT).get(timeout=LONG_S)
            taken_ms.append((time.perf_counter() - started) * 1e3)
    return {"ms_per_link": statistics.median(taken_ms) / 100}


def chords(bench: Bench, sizes: Sizes) -> Figures:
    """Chords in a chain: seconds to make and publish, and bytes on the wire, of 10 of 10 and 100 of 100."""
    del sizes
    figures: Figures = {}
    with bench.broker():
        app.send_many([(noop, (TEXT,), {}, {})])
        for side in (10, 100):
            before = wire.bytes_sent(bench.port)
            started = time.perf_counter()
            chain(chord([noop.si(TEXT)] * side, noop.si(TEXT)) for _ in range(side))()
            figures[f"publish_{side}_s"] = time.perf_counter() - started
            figures[f"bytes_{side}"] = wire.bytes_sent(bench.port) - before
            figures[f"bytes_per_task_{side}"] = figures[f"bytes_{side}"] / (side * (side + 1))
    return figures


def chord_memory(bench: Bench, sizes: Sizes) -> Figures:
    """A chord of 10,000 members that return 1 KB each: what that adds to the broker's memory at its highest."""
    del sizes
    with bench.broker() as broker, bench.worker():
        chord([noop.s(TEXT) for _ in range(BATCH)], noop.s())().get(timeout=LONG_S)
        before = anonymous_mb(broker)
        seen = []
        chord([give.s(1_000) for _ in range(10 * BATCH)], noop.s())().get(
            timeout=LONG_S, interval=0.02, on_interval=lambda: seen.append(anonymous_mb(broker))
        )
        seen.append(anonymous_mb(broker))
    return {"grown_mb": max(seen) - before, "kept_mb": seen[-1] - before}


EVENTS_PER_S = 10_000
EVENTS_A_TASK = 3
"""Received, started, succeeded."""


def events(bench: Bench, sizes: Sizes) -> Figures:
    """What 10,000 events a second to two listeners cost: no-ops end to end, of which as many are told of as make that rate."""
    # How many are to be told of follows from how fast they are.
    rate, _, _ = told_of(bench, sizes.end_to_end, every=6, listeners=0)
    every = max(1, round(rate * EVENTS_A_TASK / EVENTS_PER_S))
    without, cpu_us, _ = told_of(bench, sizes.end_to_end, every=every, listeners=0)
    beside, cpu_us_beside, heard = told_of(bench, sizes.end_to_end, every=every, listeners=2)
    return {
        "without_per_s": without,
        "beside_per_s": beside,
        "ratio": beside / without,
        "events_per_s": heard / every * EVENTS_A_TASK * beside,
        "heard_share": heard,
        "cpu_us_per_task": cpu_us,
        "beside_cpu_us_per_task": cpu_us_beside,
    }


def told_of(bench: Bench, count: int, *, every: int, listeners: int) -> tuple[float, float, float]:
    """Tasks a second where one of so many is told of; CPU a task, in µs; which share of what was told each listener heard."""
    with bench.broker() as broker, ExitStack() as stack:
        first = last = ""
        for start in range(0, count, BATCH):
            tasks = [noop if n % every == 0 else untold for n in range(start, start + BATCH)]
            calls: list[tuple[object, ...]] = [(task, (TEXT,), {}, {}) for task in tasks]
            sent = app.send_many(calls)
            first, last = first or sent[0].id, sent[-1].id
        notes = [bench.folder / f"heard-{n}" for n in range(listeners)]
        for path in notes:
            argv = (sys.executable, "-m", "tests.bench.listen", str(path))
            stack.enter_context(Program(argv, cwd=bench.folder, env=bench.env)).wait_for("listens")
        with bench.worker("-E") as worker:
            app.AsyncResult(first).get(timeout=LONG_S)
            started, used = time.perf_counter(), cpu_s(broker) + cpu_s(worker)
            app.AsyncResult(last).get(timeout=LONG_S)
            rate = count / (time.perf_counter() - started)
            used = cpu_s(broker) + cpu_s(worker) - used
            # The last events are on their way.
            threading.Event().wait(1.0)
            told = EVENTS_A_TASK * -(-count // every)
            counts = [int.from_bytes(path.read_bytes(), sys.byteorder) for path in notes]
    shutil.rmtree(bench.folder / "data")
    return rate, used / count * 1e6, min(counts, default=0) / told


def probe(bench: Bench, sizes: Sizes) -> Figures:
    """The worker's `/readyz`, over a connection of its own each time: while it is idle, and while it works as hard as it can."""
    listen = f"127.0.0.1:{programs.free_port()}"

    def ask() -> None:
        with urllib.request.urlopen(f"http://{listen}/readyz", timeout=10) as reply:
            assert reply.status == 200

    with bench.broker(), bench.worker("--http-listen", listen):
        noop.delay(TEXT).get(timeout=LONG_S)
        idle = [median_ms(ask, count=1) for _ in range(200)]
        last = bench.fill(4 * sizes.end_to_end)
        result = app.AsyncResult(last)
        busy = []
        while not result.ready():
            busy += [median_ms(ask, count=1) for _ in range(10)]
    cuts = statistics.quantiles(busy, n=100)
    return {
        "idle_p50_ms": statistics.median(idle),
        "busy_p50_ms": cuts[49],
        "busy_p99_ms": cuts[98],
    }


def soak(bench: Bench, sizes: Sizes) -> Figures:
    """Very many no-ops, a few at a time: memory of broker, worker and its children, after a tenth and at the end."""
    seen: list[Figures] = []
    share = max(BATCH, sizes.soak // 10)
    with bench.broker() as broker, bench.worker() as worker:
        for tenth in range(10):
            for start in range(0, share, 20 * BATCH):
                last = bench.fill(min(20 * BATCH, share - start))
                app.AsyncResult(last).get(timeout=LONG_S)
            family = psutil.Process(worker.process.pid).children(recursive=True)
            server = psutil.Process(worker.process.pid).children()[0].pid
            children = [anonymous_mb_of(one.pid) for one in family if one.pid != server]
            seen.append(
                {
                    "broker_mb": anonymous_mb(broker),
                    "parent_mb": anonymous_mb(worker),
                    "children_mb": max(children),
                }
            )
            print(f"  soak {(tenth + 1) * share:,}: {shown(seen[-1])}", file=sys.stderr)
    return {
        f"{name.removesuffix('_mb')}_{when}": value
        for when, figures in (("first_mb", seen[0]), ("last_mb", seen[-1]))
        for name, value in figures.items()
    }


def fanout(bench: Bench, sizes: Sizes) -> Figures:
    """Messages that 100 queues take, each of some 400 bytes and each of 10 KB: what a copy costs the broker."""
    del sizes
    queues = [Queue(f"q{number}", NEWS) for number in range(100)]
    figures: Figures = {}
    for name, size, count in (("small", 56, BATCH), ("10kb", 10_000, 200)):
        with bench.broker() as broker:
            app.client().declare_topology(topology_of(queues))
            _ = noop.apply_async((TEXT,), exchange="news")
            used, before = cpu_s(broker), stored_bytes(bench)
            started = time.perf_counter()
            for _ in range(count // 20):
                app.send_many([(noop, ("x" * size,), {}, {"exchange": "news"})] * 20)
            seconds = time.perf_counter() - started
            used = cpu_s(broker) - used
            copies = 100 * count
            figures |= {
                f"{name}_cpu_s_per_100k": used / copies * 1e5,
                f"{name}_wall_s_per_100k": seconds / copies * 1e5,
                f"{name}_disk_bytes_a_copy": (stored_bytes(bench) - before) / copies,
            }
        shutil.rmtree(bench.folder / "data")
    return figures


def stored_bytes(bench: Bench) -> int:
    """How large the store's file is."""
    return (bench.folder / "data" / "data.mdb").stat().st_size


def topic(bench: Bench, sizes: Sizes) -> Figures:
    """`send_many` through a topic exchange with 1,000 bindings, beside the queue's own name; and what a call's route costs."""
    with bench.broker():
        direct = calls_a_second(lambda: bench.fill(BATCH), threads=1, seconds=sizes.seconds)
        media = Exchange("media", type="topic")
        ways = [binding(media, f"area{number}.*.item.#") for number in range(1_000)]
        app.client().declare_topology(topology_of([Queue("celery", media, bindings=ways)]))
        calls: list[tuple[object, ...]] = [
            (
                noop,
                (TEXT,),
                {},
                {"exchange": "media", "routing_key": f"area{number}.a.item.{number}"},
            )
            for number in range(BATCH)
        ]
        through = calls_a_second(lambda: app.send_many(calls), threads=1, seconds=sizes.seconds)
    routed = App("routed", set_as_current=False)
    routed.conf.task_routes = {f"area{number}.*": {"queue": f"q{number}"} for number in range(100)}
    names = [f"area{number}.crop" for number in range(100)]
    route = routed.amqp.router.route
    started = time.perf_counter()
    for _ in range(1_000):
        for name in names:
            route({}, name)
    per_call_us = (time.perf_counter() - started) * 10
    return {
        "direct_per_s": direct * BATCH,
        "topic_per_s": through * BATCH,
        "ratio": through / direct,
        "route_us": per_call_us,
    }


def contents(bench: Bench, sizes: Sizes) -> Figures:
    """Calls whose argument is a text of that size, there and back, by serializer and by compression: tasks a second."""
    figures: Figures = {}
    for size, count in ((100, 4_000), (10_000, 1_000), (1_000_000, 20)):
        # A request holds some megabytes.
        batch = min(BATCH, 3_000_000 // size)
        text = random_words(size)
        for how in (*SERIALIZERS, *COMPRESSIONS):
            option = "serializer" if how in SERIALIZERS else "compression"
            calls: list[tuple[object, ...]] = [(measure, (text,), {}, {option: how})] * count
            with bench.broker(), bench.worker():
                measure.delay("").get(timeout=LONG_S)
                started = time.perf_counter()
                last = app.send_many(calls[:1])[-1]
                for first in range(1, count, batch):
                    last = app.send_many(calls[first : first + batch])[-1]
                last.get(timeout=LONG_S)
                figures[f"{how}_{size}"] = count / (time.perf_counter() - started)
            shutil.rmtree(bench.folder / "data")
    return figures


def hostile(bench: Bench, sizes: Sizes) -> Figures:
    """Attacks on the port: memory before, at its highest and after, p99 of a publish beside a calm one, a new client's publish."""
    figures: Figures = {}
    address = f"127.0.0.1:{bench.port}"
    arrivals = 0

    def publish() -> None:
        _ = noop.apply_async((TEXT,), ignore_result=True)

    def arrive() -> None:
        nonlocal arrivals
        arrivals += 1
        guest = App(f"guest{arrivals}", broker=f"qbroker://{address}", set_as_current=False)
        _ = guest.send_task(noop.name, (TEXT,), ignore_result=True)
        guest.close()

    for attack in attacks.ATTACKS:
        # A broker of its own each: memory that one attack leaves is not the next one's start.
        with bench.broker() as broker:
            publish()
            figures |= attacks.measured(
                attack,
                broker.process.pid,
                address,
                publish=publish,
                arrive=arrive,
                seconds=sizes.seconds,
            )
        shutil.rmtree(bench.folder / "data")
    return figures


def random_words(size: int) -> str:
    """Text of so many letters that can be made smaller, as people's can."""
    chance = random.Random(size)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=7)) for _ in range(500)]
    return " ".join(chance.choices(words, k=size // 8 + 1))[:size]


def median_ms(call: Callable[[], object], count: int = 50) -> float:
    """How long a call takes."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        call()
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)


CASES: dict[str, Callable[[Bench, Sizes], Figures]] = {
    "publish-1": publish_1,
    "publish-16": publish_16,
    "publish-many": publish_many,
    "end-to-end": end_to_end,
    "round-trip": round_trip,
    "queued": queued,
    "scheduled": scheduled,
    "lateness": lateness,
    "throttled": throttled,
    "periodic": periodic,
    "in-process": in_process,
    "group": group_1000,
    "chord": chord_1000,
    "chain": chain_100,
    "chords": chords,
    "chord-memory": chord_memory,
    "events": events,
    "probe": probe,
    "soak": soak,
    "fanout": fanout,
    "topic": topic,
    "contents": contents,
    "hostile": hostile,
}

SPARED = frozenset({"soak"})
"""What takes too long to be run without being named."""

AIMS = {
    **{
        ("hostile", f"{attack}_{figure}"): aim
        for attack in attacks.ATTACKS
        for figure, aim in (("peak_mib", "≤ 250"), ("p99_ratio", "≤ 3"), ("newcomer_ms", "≤ 500"))
    },
    ("publish-1", "rate_per_s"): "≥ 1,500",
    ("publish-16", "rate_per_s"): "≥ 8,000",
    ("publish-many", "rate_per_s"): "≥ 60,000",
    ("end-to-end", "rate_per_s"): "≥ 20,000",
    ("end-to-end", "cpu_us_per_task"): "≤ 120",
    ("round-trip", "p50_ms"): "≤ 2.0",
    ("round-trip", "p99_ms"): "≤ 6",
    ("queued", "grown_mb"): "≤ 32",
    ("queued", "restart_s"): "≤ 2",
    ("scheduled", "grown_mb"): "flat",
    ("scheduled", "rate_ratio"): "≥ 0.7",
    ("scheduled", "explain_ms"): "≤ 5",
    ("scheduled", "cancel_ms"): "≤ 5",
    ("scheduled", "page_ms"): "≤ 50",
    ("lateness", "earliest_ms"): "≥ 0",
    ("lateness", "p99_ms"): "≤ 20",
    ("throttled", "ratio"): "≥ 0.9",
    ("periodic", "idle_cpu_ms_per_s"): "0",
    ("periodic", "earliest_ms"): "≥ 0",
    ("periodic", "p99_ms"): "≤ 20",
    ("in-process", "first_start_ms"): "≤ 50",
    ("in-process", "p50_ms"): "≤ 5",
    ("group", "total_ms"): "≤ 100",
    ("chord", "body_ms"): "≤ 150",
    ("chain", "ms_per_link"): "≤ 2",
    ("chords", "publish_100_s"): "< 2",
    ("chords", "bytes_per_task_100"): "as of 10",
    ("chord-memory", "grown_mb"): "< 64",
    ("events", "ratio"): "≥ 0.85",
    ("events", "events_per_s"): "10,000",
    ("events", "heard_share"): "1",
    ("probe", "idle_p50_ms"): "≤ 5",
    ("probe", "busy_p50_ms"): "≤ 5",
    ("soak", "broker_last_mb"): "as first",
    ("soak", "parent_last_mb"): "as first",
    ("soak", "children_last_mb"): "as first",
    ("fanout", "small_cpu_s_per_100k"): "≤ 4",
    ("fanout", "10kb_cpu_s_per_100k"): "≤ 4",
    ("topic", "ratio"): "≥ 0.7",
    ("topic", "route_us"): "≤ 5",
}
"""What 2 cores are meant to reach, for comparison only."""


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--cases",
        default=",".join(name for name in CASES if name not in SPARED),
        help=f"separated by commas (%(default)s); and {', '.join(SPARED)}",
    )
    parser.add_argument("--runs", type=int, default=3, help="of each case (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of publishing (%(default)s)")
    parser.add_argument("--tasks", type=int, default=50_000, help="end to end (%(default)s)")
    parser.add_argument("--round-trips", type=int, default=1_000, help="(%(default)s)")
    parser.add_argument("--queued", type=int, default=1_000_000, help="waiting (%(default)s)")
    parser.add_argument("--soak", type=int, default=2_000_000, help="tasks (%(default)s)")
    parser.add_argument("--dir", type=Path, help="where the data goes; must be a real disk")
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="a JSON line a run, no table")
    chosen = parser.parse_args()
    unknown = set(chosen.cases.split(",")) - set(CASES)
    if unknown:
        parser.error(f"no case is called {sorted(unknown)}; there are {', '.join(CASES)}")
    return chosen


def main() -> int:
    """Run the chosen cases and print what they cost."""
    chosen = options()
    if chosen.port is not None:
        sizes = Sizes(chosen.seconds, chosen.tasks, chosen.round_trips, chosen.queued, chosen.soak)
        print(json.dumps(CASES[chosen.cases](Bench(chosen.dir, chosen.port), sizes)))
        return 0
    warn_of_memory_disk(chosen.dir or Path(tempfile.gettempdir()))
    rows: list[tuple[str, str, list[float]]] = []
    for case in chosen.cases.split(","):
        runs: list[Figures] = []
        for run in range(chosen.runs):
            load = os.getloadavg()[0]
            figures = alone(case, chosen)
            runs.append(figures | {"load_before": load})
            if chosen.json:
                print(json.dumps({"case": case, "run": run} | runs[-1]), flush=True)
            else:
                print(f"  {case} {run + 1}/{chosen.runs}: {shown(figures)}", file=sys.stderr)
        rows += [(case, name, [figures[name] for figures in runs]) for name in runs[0]]
    if not chosen.json:
        print_table(rows)
    return 0


def alone(case: str, chosen: argparse.Namespace) -> Figures:
    """One run in a process of its own, whose client has no past."""
    port = programs.free_port()
    with tempfile.TemporaryDirectory(prefix="qbroker-bench-", dir=chosen.dir) as folder:
        argv = ["--cases", case, "--dir", folder, "--port", str(port)]
        for name in ("seconds", "tasks", "round_trips", "queued", "soak"):
            argv += [f"--{name.replace('_', '-')}", str(getattr(chosen, name))]
        ended = subprocess.run(
            [sys.executable, __file__, *argv],
            env=programs.environment(port),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
        )
    figures: Figures = json.loads(ended.stdout)
    return figures


def warn_of_memory_disk(folder: Path) -> None:
    """Say so when syncs would cost nothing."""
    mounts = [
        part
        for part in psutil.disk_partitions(all=True)
        if folder.resolve().is_relative_to(part.mountpoint)
    ]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown"
    if kind in {"tmpfs", "ramfs"}:
        print(
            f"{folder} is in memory ({kind}), where a sync costs nothing: use --dir",
            file=sys.stderr,
        )


def shown(figures: Figures) -> str:
    """Figures in one line."""
    return ", ".join(f"{name} {value:,.2f}" for name, value in figures.items())


def print_table(rows: list[tuple[str, str, list[float]]]) -> None:
    """Print a table for people: medians, their range, and what was aimed at."""
    line = "{:<14} {:<24} {:>12} {:>26}  {}"
    print(line.format("case", "figure", "median", "range", "aim on 2 cores"))
    for case, name, values in rows:
        spread = f"{min(values):,.2f} to {max(values):,.2f}"
        aim = AIMS.get((case, name), "")
        print(line.format(case, name, f"{statistics.median(values):,.2f}", spread, aim).rstrip())


if __name__ == "__main__":
    sys.exit(main())
