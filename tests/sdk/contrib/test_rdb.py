"""A debugger inside a task, spoken to over a socket."""

import io
import re
import socket
import sys
import threading
from bdb import BdbQuit
from types import FrameType

import pytest

from qbroker.contrib import rdb
from qbroker.contrib.rdb import Rdb

WAIT_S = 10.0


class Out(io.StringIO):
    """What the debugger says, a line at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.said = threading.Event()

    def flush(self) -> None:
        self.said.set()


def talk(port: int, words: list[str]) -> str:
    """Say these to a session, one after each prompt; what it answers."""
    heard = ""
    with socket.create_connection(("127.0.0.1", port), WAIT_S) as link:
        for word in words:
            while not heard.endswith("(Rdb) "):
                heard += link.recv(1_000).decode()
            heard += "\n"
            link.sendall(f"{word}\n".encode())
        while more := link.recv(1_000).decode():
            heard += more
    return heard


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def debugged(say: list[str]) -> tuple[str, str, list[object]]:
    """A function that stops in the debugger, run while it is spoken to: what both said, and how it ended."""
    out, ended, port = Out(), list[object](), free_port()

    def task(x: int) -> int:
        total = x + 1
        Rdb(port=port, out=out).set_trace(sys._getframe())
        total += 1
        return total

    def run() -> None:
        try:
            ended.append(task(40))
        except BdbQuit as error:
            ended.append(type(error))

    thread = threading.Thread(target=run)
    thread.start()
    assert out.said.wait(WAIT_S)
    found = re.search(r"telnet 127.0.0.1 (\d+)", out.getvalue())
    assert found is not None
    heard = talk(int(found[1]), say)
    thread.join(WAIT_S)
    return heard, out.getvalue(), ended


@pytest.mark.parametrize("word", ["c", "cont", "continue"])
def test_who_connects_looks_into_the_task_and_lets_it_go_on(word: str) -> None:
    heard, out, ended = debugged(["p total", "total = 100", word])

    assert "-> total += 1" in heard
    assert "41" in heard
    assert "speaks with 127.0.0.1:" in out
    assert "has ended with 127.0.0.1:" in out
    assert ended in ([42], [101])


@pytest.mark.parametrize("word", ["q", "exit"])
def test_who_quits_ends_the_task(word: str) -> None:
    _, _, ended = debugged([word])

    assert ended == [BdbQuit]


def test_a_port_that_is_taken_is_passed_over() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(RuntimeError, match=f"finds no free port from {port} on"):
            Rdb(port=port, port_search_limit=1, out=Out())


def test_set_trace_speaks_with_the_session_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Known:
        active = True
        frames: list[FrameType] = []  # noqa: RUF012 - one test's

        def set_trace(self, frame: FrameType) -> None:
            self.frames.append(frame)

    monkeypatch.setattr(rdb, "_current", [Known()])

    rdb.set_trace()

    assert [frame.f_code.co_name for frame in Known.frames] == [
        "test_set_trace_speaks_with_the_session_there_is"
    ]
