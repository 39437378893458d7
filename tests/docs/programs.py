"""Programs under test: started in a process group of their own, watched by their lines, ended for sure."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

BIN = Path(sys.executable).parent
WAIT_S = 30.0
BROKER_READY = " listens on "
WORKER_READY = " ready."


def free_port() -> int:
    """A port of the loopback address nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(port: int, **more: str) -> dict[str, str]:
    """The environment of a program that is to use the broker at `port`, and no other."""
    ours = os.environ.items()  # noqa: TID251 - a child's environment is made from its parent's
    mine = {name: value for name, value in ours if not name.startswith("QBROKER_")}
    return mine | {
        "PATH": f"{BIN}{os.pathsep}{mine['PATH']}",
        "PYTHONUNBUFFERED": "1",
        # The default would take 64 MiB of disk for each page.
        "QBROKER_RESERVE_BYTES": str(2**20),
        "QBROKER_LISTEN": f"127.0.0.1:{port}",
        "QBROKER_URL": f"qbroker://127.0.0.1:{port}",
        **more,
    }


class Program:
    """A running program; leaving its block kills what is left of it."""

    def __init__(
        self, argv: Sequence[str], *, cwd: Path, env: Mapping[str, str], stdin: str | None = None
    ) -> None:
        self.process = subprocess.Popen(
            [str(BIN / argv[0]) if (BIN / argv[0]).exists() else argv[0], *argv[1:]],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            process_group=0,
        )
        if self.process.stdin is not None:
            with self.process.stdin as pipe:
                pipe.write(stdin or "")
        self._lines: list[str] = []
        self._is_over = False
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """Everything it has written so far."""
        return "".join(self._lines)

    def wait_for(self, text: str, *, timeout_s: float = WAIT_S) -> str:
        """The first line with `text` in it, when it has come."""
        with self._changed:
            self._changed.wait_for(
                lambda: self._is_over or any(text in line for line in self._lines), timeout_s
            )
        found = next((line for line in self._lines if text in line), None)
        assert found is not None, (
            f"no line with {text!r} from {self.process.args!r}:\n{self.output}"
        )
        return found

    def stop(self, signum: signal.Signals = signal.SIGTERM, *, timeout_s: float = WAIT_S) -> int:
        """Send the signal and give the exit code."""
        self.process.send_signal(signum)
        return self.wait(timeout_s=timeout_s)

    def wait(self, *, timeout_s: float = WAIT_S) -> int:
        """The exit code, when it has ended and its last line is read."""
        code = self.process.wait(timeout_s)
        self._reader.join(timeout_s)
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What it has started may stand in groups of its own, and any of it may be gone already.
        if self.process.poll() is None:
            root = psutil.Process(self.process.pid)
            for program in (root, *root.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    program.kill()
            self.process.wait()
        self._reader.join(WAIT_S)
