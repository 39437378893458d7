"""`qbroker dev`: two programs in one terminal, and the end of both."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.docs import programs
from tests.docs.programs import Program

APP = """
from qbroker import App

app = App("proj", backend="qbroker://")


@app.task
def add(x: int, y: int) -> int:
    return x + y
"""
ARGV = ("qbroker", "dev", "-A", "proj", "--port", "0", "-c", "1", "-P", "solo")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "proj.py").write_text(APP)
    return tmp_path


@pytest.fixture
def dev(folder: Path) -> Iterator[Program]:
    with Program(ARGV, cwd=folder, env=programs.environment(0)) as program:
        program.wait_for(programs.WORKER_READY)
        yield program


def descendants(program: Program) -> list[psutil.Process]:
    """What the program has started, with what that has started."""
    return psutil.Process(program.process.pid).children(recursive=True)


def child(program: Program, word: str) -> psutil.Process:
    """The broker or the worker, by the sub-command on its command line."""
    return next(p for p in psutil.Process(program.process.pid).children() if word in p.cmdline())


@pytest.mark.e2e
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stop_signal_ends_worker_then_broker_and_it_with_code_0(
    dev: Program, signum: signal.Signals
) -> None:
    started = descendants(dev)

    code = dev.stop(signum)

    assert code == 0, dev.output
    assert psutil.wait_procs(started, timeout=0)[1] == []


@pytest.mark.e2e
def test_each_line_says_who_wrote_it(dev: Program) -> None:
    dev.stop()

    speakers = {line.partition("|")[0].strip() for line in dev.output.splitlines()}

    assert speakers == {"broker", "worker", "dev"}


@pytest.mark.e2e
def test_the_next_command_it_names_works(dev: Program, folder: Path) -> None:
    line = dev.wait_for("next, in another terminal: ")
    command = line.partition("terminal: ")[2].split()

    with Program(command, cwd=folder, env=programs.environment(1)) as qctl:
        assert qctl.wait() == 0, qctl.output


@pytest.mark.e2e
def test_the_data_stays_where_it_was_said_to_be(dev: Program, folder: Path) -> None:
    dev.stop()

    assert (folder / ".qbroker").is_dir()


@pytest.mark.e2e
@pytest.mark.parametrize(("victim", "word"), [("broker", "serve"), ("worker", "worker")])
def test_when_one_program_dies_the_other_is_stopped_and_the_reason_is_said(
    dev: Program, victim: str, word: str
) -> None:
    started = descendants(dev)

    child(dev, word).kill()

    assert dev.wait() == 1
    assert f"the {victim} was ended by SIGKILL; stopping what else runs" in dev.output
    assert psutil.wait_procs(started, timeout=0)[1] == []


@pytest.mark.e2e
def test_a_second_stop_signal_kills_a_worker_that_does_not_end(dev: Program) -> None:
    started = descendants(dev)
    os.kill(child(dev, "worker").pid, signal.SIGSTOP)

    dev.process.send_signal(signal.SIGINT)
    dev.wait_for("once more kills")
    dev.process.send_signal(signal.SIGINT)

    assert dev.wait() == 0, dev.output
    assert psutil.wait_procs(started, timeout=0)[1] == []


@pytest.mark.e2e
def test_a_taken_port_is_said_and_ends_it(dev: Program, tmp_path: Path) -> None:
    address = re.search(r"listens on 127.0.0.1:(\d+)", dev.wait_for("listens on"))
    assert address is not None
    argv = ("qbroker", "dev", "-A", "proj", "--port", address[1], "--data-dir", "other")

    with Program(argv, cwd=tmp_path, env=programs.environment(0)) as second:
        code = second.wait()

    assert code == 1
    assert f"Cannot listen on 127.0.0.1:{address[1]}" in second.output
    assert "worker" not in second.output


@pytest.mark.e2e
def test_without_an_app_it_says_how_to_name_one(tmp_path: Path) -> None:
    with Program(("qbroker", "dev"), cwd=tmp_path, env=programs.environment(0)) as program:
        code = program.wait()

    assert code == 2
    assert "qbroker dev -A proj" in program.output
