"""`qctl top`: what is on its screen, also in a real pseudo-terminal."""

import io
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from qbroker import App
from qbroker.cli import top
from qbroker.client import Client
from qbroker.serialization import Value
from tests.docs import programs
from tests.sdk.answering import Silence
from tests.sdk.cli.asking import Shell
from tests.sdk.conftest import Hire
from tests.sdk.real_broker import RealBroker

QCTL = "from qbroker.cli.qctl import main; main()"
WAIT_S = 20.0

INFO = {
    "id": "task-1",
    "name": "proj.add",
    "args": "(2, 2)",
    "time_start": 5.0,
    "worker_pid": 8,
}


def answers(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    return [INFO] if name == "active" else None


def silent(name: str, arguments: dict[str, Value], words: list[str]) -> Value:
    raise Silence


def test_the_screen_has_queues_workers_and_what_runs(
    qctl: Shell, real_app: App, hire: Hire
) -> None:
    _ = real_app.send_task("nobody.knows", queue="mail")
    hire("a@host", answers)
    hire("b@host", silent)

    said = qctl.said("top", "--once")

    lines = [line.split() for line in said.splitlines()]
    assert lines[0][0] == "qbroker"
    assert ["mail", "1", "0", "0", "0"] in [line[:5] for line in lines]
    assert ["a@host", "7", "solo", "1", "0", "celery", "up"] in lines
    assert ["b@host", "7", "solo", "1", "0", "celery", "silent"] in lines
    assert ["task-1", "proj.add", "(2,", "2)"] in [line[:4] for line in lines]
    assert "q: quit" in said


def test_a_snapshot_is_drawn_without_a_broker() -> None:
    status = {
        "version": "1",
        "started_ms": 0,
        "scheduled_count": 0,
        "dead_count": 3,
        "stored_bytes": 0,
        "workers": [],
    }
    queue = {
        "name": "mail",
        "ready_count": 1_000,
        "leased_count": 0,
        "scheduled_count": 0,
        "consumer_count": 0,
        "oldest_ms": 1,
        "in_rate": 1.5,
        "out_rate": 0.5,
        "paused_ms": 5,
    }
    console = Console(width=200, record=True, file=io.StringIO())

    console.print(top.render(top.Snapshot(60_000, "qbroker://x", status, [queue], [], [])))
    said = console.export_text()

    assert "up 1 min 0 s, 1.5 in/s, 0.5 out/s, 0 scheduled, 3 dead" in said
    assert "1,000" in said
    assert "paused" in said


def test_it_looks_again_until_a_key_ends_it(real_broker: RealBroker) -> None:
    keys = iter(["", "x", "q"])
    drawn: list[str] = []

    def draw() -> str:
        drawn.append("frame")
        return f"frame {len(drawn)}"

    console = Console(force_terminal=True, width=80, height=20, file=io.StringIO())
    top._watch(console, draw, lambda _: next(keys), 1.0)

    assert len(drawn) == 3


def test_a_look_that_finds_no_broker_ends_it() -> None:
    client = Client("qbroker://127.0.0.1:1", timeout_s=0.1)

    with pytest.raises(Exception, match=r"127\.0\.0\.1:1"):
        top.take(client)


@pytest.mark.e2e
def test_it_fills_a_terminal_and_leaves_it_as_it_was(
    real_broker: RealBroker, hire: Hire, tmp_path: Path
) -> None:
    hire("a@host", answers)
    ours, theirs = pty.openpty()
    program = subprocess.Popen(
        [sys.executable, "-c", QCTL, "-b", real_broker.url, "top", "--every", "0.1"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=tmp_path,
        env=programs.environment(real_broker.port)
        | {"TERM": "xterm", "COLUMNS": "160", "LINES": "40"},
    )
    os.close(theirs)
    seen = b""
    try:
        while seen.count(b"proj.add") < 2:
            ready, _, _ = select.select([ours], [], [], WAIT_S)
            assert ready, seen
            seen += os.read(ours, 65_536)
        os.write(ours, b"q")
        code = program.wait(WAIT_S)
        while select.select([ours], [], [], 0)[0]:
            try:
                seen += os.read(ours, 65_536)
            except OSError:
                break
    finally:
        program.kill()
        program.wait()
        os.close(ours)

    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    assert code == 0
    assert "a@host" in text
    assert "task-1" in text
    # The other screen was opened, and closed again.
    assert b"\x1b[?1049h" in seen
    assert b"\x1b[?1049l" in seen


@pytest.mark.e2e
def test_without_a_terminal_to_read_keys_from_it_says_what_to_do(
    real_broker: RealBroker,
) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", QCTL, "-b", real_broker.url, "top"],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        os.close(theirs)
        _, said = program.communicate(timeout=WAIT_S)
    os.close(ours)

    assert program.returncode == 2
    assert "qctl top --once" in said
