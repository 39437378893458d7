"""Each signal, on each pool: what is finished, what is given back, what is lost (nothing but what is said)."""

import signal
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.e2e.conftest import Farm, Process

pytestmark = pytest.mark.e2e

POOLS = ["prefork", "threads", "asyncio", "solo"]

PROGRAM = """
from proj import hold, hold_late, mark
gate = {gate!r}
running = [hold.delay("early", gate)] + ([hold_late.delay("late", gate)] if {count} > 1 else [])
waiting = [mark.delay(f"waiting{{n}}") for n in range(20)]
print("PUBLISHED", flush=True)
for result in running + waiting:
    try:
        result.get(timeout=60)
    except Exception as error:
        print("FAILED", type(error).__name__, flush=True)
print("DONE")
"""


def _busy(farm: "Farm", pool: str) -> "tuple[Process, Process, int]":
    """A worker whose slots all run, with more behind; the worker, the program that waits, how many run."""
    count = 1 if pool == "solo" else 2
    worker = farm.worker("-c", str(count), "-P", pool, "-n", "first@%h")
    program = farm.python(PROGRAM.format(gate=str(farm.folder / "gate"), count=count))
    program.wait_for("PUBLISHED")
    while len(farm.notes()) < count:
        with pytest.raises(TimeoutError):
            worker.popen_wait(0.02)
    return worker, program, count


def _all_ran_once(farm: "Farm", *again: str) -> None:
    """Each task ran once, but for those that were to run again."""
    notes = farm.notes()
    marks = [note for note in notes if note.startswith("waiting")]
    assert sorted(marks) == sorted(f"waiting{n}" for n in range(20))
    assert notes.count("early") == 1
    assert notes.count("late") in (0, 1 + again.count("late"))


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda n: n.name)
def test_term_and_int_finish_what_runs_and_give_back_the_rest(
    farm: "Farm", pool: str, number: signal.Signals
) -> None:
    farm.broker()
    worker, program, _ = _busy(farm, pool)

    worker.popen.send_signal(number)
    worker.wait_for("Warm shutdown")
    (farm.folder / "gate").touch()
    code = worker.popen_wait(20)
    farm.worker("-c", "2", "-n", "second@%h")
    program.wait_for("DONE", timeout=60)

    assert code == 0
    assert not any(line.startswith("FAILED") for line in program.lines)
    _all_ran_once(farm)


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    "numbers", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]], ids=["QUIT", "INT-INT"]
)
def test_quit_and_a_second_int_end_what_runs_and_late_ones_run_again(
    farm: "Farm", pool: str, numbers: list[signal.Signals]
) -> None:
    farm.broker()
    worker, program, count = _busy(farm, pool)

    for number in numbers:
        worker.popen.send_signal(number)
        worker.wait_for("shutdown")
    code = worker.popen_wait(20)
    (farm.folder / "gate").touch()
    farm.worker("-c", "2", "-n", "second@%h")
    program.wait_for("FAILED WorkerLostError", timeout=60)
    program.wait_for("DONE", timeout=60)

    assert code == 1
    _all_ran_once(farm, *(["late"] if count > 1 else []))


@pytest.mark.parametrize("pool", POOLS)
def test_hup_finishes_what_runs_and_begins_anew(farm: "Farm", pool: str) -> None:
    farm.broker()
    worker, program, _ = _busy(farm, pool)

    worker.popen.send_signal(signal.SIGHUP)
    worker.wait_for("Warm shutdown")
    (farm.folder / "gate").touch()
    worker.wait_for(r"first@.* ready")
    program.wait_for("DONE", timeout=60)

    assert worker.end(signal.SIGTERM) == 0
    assert not any(line.startswith("FAILED") for line in program.lines)
    _all_ran_once(farm)


@pytest.mark.parametrize("pool", POOLS)
def test_usr1_tells_the_stacks_and_the_work_goes_on(farm: "Farm", pool: str) -> None:
    farm.broker()
    worker, program, _ = _busy(farm, pool)

    worker.popen.send_signal(signal.SIGUSR1)
    worker.wait_for("Stacks of the worker's process")
    # What the task is at, in whichever process it is.
    worker.wait_for("in wait_for")
    (farm.folder / "gate").touch()
    program.wait_for("DONE", timeout=60)

    assert worker.end(signal.SIGTERM) == 0
    _all_ran_once(farm)


def test_a_second_worker_of_a_name_ends_with_a_sentence_that_names_the_first(farm: "Farm") -> None:
    farm.broker()
    first = farm.worker("-c", "1", "-n", "mail@%h")
    second = farm.start("worker", "-A", "proj", "-n", "mail@%h")

    second.wait_for(
        rf"a worker of the name 'mail@.*' is connected already: process {first.pid} on host"
    )

    assert second.popen_wait(20) == 1
    assert first.popen.poll() is None


TELLING = """
from proj import app
from qbroker import signals


@signals.heartbeat_sent.connect
def beat(sender, **kwargs):
    print(f"beat of {sender.hostname}")


@signals.worker_shutting_down.connect
def ending(sender, sig, how, exitcode, **kwargs):
    print(f"ending {sender} {sig} {how} {exitcode}")
"""


def test_a_busy_worker_still_tells_the_app_that_it_lives_and_that_it_ends(farm: "Farm") -> None:
    (farm.folder / "tasks.py").write_text(TELLING)
    farm.broker()
    worker = farm.worker("-c", "1", "-I", "tasks", "-n", "w@here")
    farm.python(f"from proj import hold; hold.delay('held', {str(farm.folder / 'gate')!r})")
    worker.wait_for("hold.* received")

    worker.wait_for("beat of w@here")
    worker.popen.send_signal(signal.SIGTERM)
    worker.wait_for("ending w@here SIGTERM Warm 0")
    worker.popen.send_signal(signal.SIGQUIT)
    worker.wait_for("ending w@here SIGQUIT Cold 1")

    assert worker.popen.wait(20) == 1
