"""Commands of the app, run beside the worker."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator

import pytest

from qbroker import signals
from qbroker.app import App
from qbroker.serialization import Value
from qbroker.worker.control import ControlState, Panel, inspect_command
from qbroker_worker import aide
from qbroker_worker.aide import Aide, Ends, serve
from qbroker_worker.pools.forkserver import Loaded
from qbroker_worker.values import Ask
from tests.worker.toys import PATIENCE_S, begin


@pytest.fixture
def commands() -> Iterator[App]:
    """Two commands in the panel, for a while."""
    app = App("aided")

    @inspect_command(args=[("n", int)], signature="[N=1]")
    def double(state: ControlState, n: int = 1) -> Value:
        """Twice n."""
        return {"ok": n * 2, "app": state.app.main, "host": state.hostname}

    @inspect_command(name="broken")
    def fails(state: ControlState) -> Value:
        raise ValueError(state.hostname)

    yield app
    for name in ("double", "broken"):
        del Panel.data[name], Panel.meta[name]
    app.close()


class Asked:
    """An aide, and what it was answered."""

    def __init__(self, aide: Aide) -> None:
        self.aide = aide
        self.answers: list[Value] = []
        self._news = asyncio.Event()

    def ask(self, command: str, arguments: Value = None, *words: str) -> None:
        raw = json.dumps(arguments).encode() if arguments else b""
        self.aide.ask(Ask(1, command, raw, words), self._hear)

    def _hear(self, body: bytes) -> None:
        self.answers.append(json.loads(body))
        self._news.set()

    async def until(self, count: int) -> list[Value]:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.answers) < count:
                self._news.clear()
                await self._news.wait()
        return self.answers


async def test_commands_run_one_after_another_with_what_they_were_given(commands: App) -> None:
    asked = Asked(Ends("a@host").here())

    asked.ask("double")
    asked.ask("double", {"n": 4})
    asked.ask("double", None, "7")
    answers = await asked.until(3)
    asked.aide.close()

    assert [answer["ok"] for answer in answers] == [2, 8, 14]
    assert answers[0] == {"ok": 2, "app": commands.main, "host": "a@host"}


async def test_what_a_command_raises_is_its_answer(
    commands: App, caplog: pytest.LogCaptureFixture
) -> None:
    asked = Asked(Ends("a@host").here())

    asked.ask("broken")
    asked.ask("double", None, "x")
    asked.ask("double", None, "1", "2")
    answers = await asked.until(3)
    asked.aide.close()

    assert answers[0] == {"error": "ValueError('a@host')"}
    assert "double: n:" in answers[1]["error"]
    assert "[N=1]" in answers[2]["error"]
    assert "'broken' failed" in caplog.text


async def test_what_is_asked_when_nobody_is_there_is_answered_all_the_same(commands: App) -> None:
    ours, theirs = socket.socketpair()
    asked = Asked(Aide(ours))
    asked.ask("double")
    theirs.close()
    first = (await asked.until(1))[0]
    asked.ask("double")
    _, second = await asked.until(2)

    assert "ended" in first["error"]
    assert "is gone" in second["error"]


async def test_an_aide_that_does_not_keep_up_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    asked = Asked(Aide(ours))
    with theirs:
        for _ in range(1_000):
            asked.ask("double", {"n": "x" * 10_000})
            if asked.answers:
                break
        said = asked.answers[0]["error"]
        asked.aide.close()

    assert "keep up" in said


def test_a_loader_says_that_commands_are_to_be_served_where_the_app_has_some(commands: App) -> None:
    ends = Ends("a@host")
    loaded = ends.beside(lambda: Loaded(b"facts", begin))()
    ours, theirs = socket.socketpair()
    with ours:
        thread = threading.Thread(target=serve, args=(theirs, "a@host", commands))
        thread.start()

    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert loaded.beside is not None
    loaded.beside.let_go()


def test_a_loader_serves_none_where_the_app_has_none() -> None:
    assert Ends("a@host").beside(lambda: Loaded(b"facts", begin))().beside is None


async def test_signals_are_sent_with_celerys_senders_and_the_teller_hears_that_they_were(
    commands: App,
) -> None:
    heard: list[Value] = []

    def hear(signal: Value, sender: Value, **fields: Value) -> None:
        heard.append((signal.name, getattr(sender, "hostname", sender), fields))

    for name in aide.SIGNALS:
        getattr(signals, name).connect(hear)
    asked = Asked(Ends("a@host").here())
    fields = {"sig": "SIGTERM", "how": "Warm", "exitcode": 0}
    try:
        asked.aide.tell("heartbeat_sent", {}, asked._hear)
        asked.aide.tell("worker_shutting_down", fields, asked._hear)
        answers = await asked.until(2)
    finally:
        for name in aide.SIGNALS:
            getattr(signals, name).disconnect(hear)
    asked.aide.close()

    assert heard == [("heartbeat_sent", "a@host", {}), ("worker_shutting_down", "a@host", fields)]
    assert answers == [None, None]


def test_an_app_that_listens_to_such_a_signal_is_served_although_it_has_no_commands() -> None:
    def hear(**_: Value) -> None: ...

    assert not aide.is_wanted()
    signals.heartbeat_sent.connect(hear)
    try:
        assert aide.is_wanted()
    finally:
        signals.heartbeat_sent.disconnect(hear)
