"""A real broker and real workers, each a process of its own, in a temporary folder."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import IO

import pytest

START_S = 20.0
"""How long a process may take to say that it is up, on a machine with other things to do."""

QCTL = "from qbroker.cli.qctl import main; main()"

PROJECT = '''
import os
import signal
import time

from qbroker import App
from qbroker.limits import Limit

app = App("proj", broker=os.environ["PROJ_BROKER"], backend="qbroker://")
NOTES = os.environ["PROJ_NOTES"]


def note(word):
    """One line a run; a short O_APPEND write is whole whoever else writes."""
    fd = os.open(NOTES, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, f"{word}\\n".encode())
    os.close(fd)


def wait_for(path):
    """Until `path` exists: how the test says go on."""
    while not os.path.exists(path):
        time.sleep(0.01)


@app.task
def add(x, y):
    return x + y


@app.task
def mark(word):
    note(word)
    return word


@app.task(acks_late=True)
def mark_late(word):
    note(word)
    return word


@app.task
def hold(word, path):
    note(word)
    wait_for(path)
    return word


@app.task(acks_late=True)
def hold_late(word, path):
    note(word)
    wait_for(path)
    return word


@app.task
def die(number):
    os.kill(os.getpid(), number)
    signal.pause()


@app.task(acks_late=True, max_deliveries=3)
def die_late(word):
    note(word)
    os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()


@app.task
def nap(word, seconds):
    note(word)
    time.sleep(seconds)
    return seconds


@app.task
def late_by(number, due):
    note(number)
    return time.time() - due


@app.task(bind=True, max_retries=5, default_retry_delay=0.05)
def flaky(self, word, failures):
    note(self.request.id)
    if self.request.retries < failures:
        raise self.retry(exc=ValueError("not yet"))
    return self.request.retries


@app.task(limits=[Limit("ten a second", rate="10/s")])
def limited(number):
    return time.time()


@app.task
def pid():
    return os.getpid()
'''


class Process:
    """A program that runs beside the test; its output is read line by line as it comes."""

    def __init__(self, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.lines: list[str] = []
        self._queue: Queue[str | None] = Queue()
        self.popen = subprocess.Popen(
            argv,
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        assert self.popen.stdout is not None
        self._reader = Thread(target=self._read, args=(self.popen.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    @property
    def pid(self) -> int:
        return self.popen.pid

    def wait_for(self, pattern: str, timeout: float = START_S) -> re.Match[str]:
        """The first line from here on that matches; fails with the whole output when none comes."""
        while True:
            try:
                line = self._queue.get(timeout=timeout)
            except Empty:
                pytest.fail(f"no {pattern!r} in {timeout} s; got:\n" + "\n".join(self.lines))
            if line is None:
                self._queue.put(None)
                pytest.fail(f"ended without {pattern!r}; said:\n" + "\n".join(self.lines))
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found

    def popen_wait(self, seconds: float) -> int:
        """Its exit code; TimeoutError when it still runs after that long."""
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(seconds) from error

    def end(self, number: int = signal.SIGTERM, timeout: float = START_S) -> int:
        """Send the signal and wait; the exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        code = self.popen.wait(timeout)
        self._reader.join(timeout)
        while (line := self._queue.get_nowait()) is not None:
            self.lines.append(line)
        self._queue.put(None)
        return code

    def close(self) -> None:
        """Kill it if it runs, and let go of its output."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait(START_S)
        self._reader.join(START_S)
        assert self.popen.stdout is not None
        self.popen.stdout.close()


class Farm:
    """Starts processes for one test and ends what is left of them after it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes_path = folder / "notes"
        self.broker_url = ""
        self._processes: list[Process] = []
        # What the tests themselves run with comes behind the project.
        self._path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        (folder / "proj.py").write_text(PROJECT)

    def start(self, *arguments: str, **extra: str) -> Process:
        """`qbroker <arguments>` in the test's folder."""
        env = {
            **os.environ,
            "PROJ_BROKER": self.broker_url,
            "PROJ_NOTES": str(self.notes_path),
            "PYTHONPATH": self._path,
            **extra,
        }
        process = Process([sys.executable, "-m", "qbroker", *arguments], env, self.folder)
        self._processes.append(process)
        return process

    def broker(self, listen: str = "127.0.0.1:0", **settings: str) -> Process:
        """A broker that is up; `broker_url` is where."""
        process = self.start(
            "serve",
            "--data-dir",
            "data",
            "--listen",
            listen,
            **{"QBROKER_GRACE_MS": "1000", "QBROKER_RESERVE_BYTES": "1048576", **settings},
        )
        address = process.wait_for(r"listens on (127\.0\.0\.1:\d+)").group(1)
        self.broker_url = f"qbroker://{address}"
        return process

    def worker(self, *arguments: str) -> Process:
        """A worker of the project that is consuming."""
        process = self.start("worker", "-A", "proj", "-l", "INFO", *arguments)
        process.wait_for(r"\bready\b")
        return process

    def python(self, code: str) -> Process:
        """A Python program that may `from proj import …`."""
        script = self.folder / f"program{len(self._processes)}.py"
        script.write_text(code)
        env = {
            **os.environ,
            "PROJ_BROKER": self.broker_url,
            "PROJ_NOTES": str(self.notes_path),
            "PYTHONPATH": self._path,
            "PYTHONUNBUFFERED": "1",
        }
        process = Process([sys.executable, str(script)], env, self.folder)
        self._processes.append(process)
        return process

    def qctl(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """What `qctl <arguments>` says of this test's broker."""
        return subprocess.run(
            [sys.executable, "-c", QCTL, "-b", self.broker_url, *arguments],
            capture_output=True,
            text=True,
            timeout=START_S,
            check=False,
        )

    def notes(self) -> list[str]:
        """What the tasks noted, in order."""
        return self.notes_path.read_text().splitlines() if self.notes_path.exists() else []

    def close(self) -> None:
        for process in reversed(self._processes):
            process.close()


@pytest.fixture
def farm(tmp_path: Path) -> Iterator[Farm]:
    farm = Farm(tmp_path)
    try:
        yield farm
    finally:
        farm.close()
