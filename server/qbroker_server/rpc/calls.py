"""Questions that are out with workers, and what has come back.

The broker knows who was asked, so a question is over when all have answered, and who has not can be named.
A worker that goes away meanwhile will not answer: it is not waited for.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import NamedTuple

from qbroker_proto.v1 import control_pb2


class Asked(NamedTuple):
    """A worker that a question went to."""

    session: str
    worker: str


class Call:
    """One question, and the answers that have come."""

    def __init__(self, asked: Iterable[Asked], command: str = "", *, is_heard: bool = True) -> None:
        self.command = command
        self.is_heard = is_heard
        """Somebody takes its answers; else it is over with the last of them."""
        self.waiting = {one.session: one.worker for one in asked}
        """Who has not answered: node names, by session."""
        self._answers: deque[tuple[str, bytes]] = deque()
        self._wake = asyncio.Event()

    def answered(self, session: str, body: bytes) -> None:
        """Take an answer; a second one of the same session is none."""
        worker = self.waiting.pop(session, None)
        if worker is not None:
            self._answers.append((worker, body))
            self._wake.set()

    def gone(self, session: str) -> None:
        """Wait for this one no more."""
        if self.waiting.pop(session, None) is not None:
            self._wake.set()

    async def settled(self, sessions: Container[str]) -> None:
        """Wait until none of these is waited for any more."""
        while any(session in sessions for session in self.waiting):
            self._wake.clear()
            await self._wake.wait()

    async def next(self) -> tuple[str, bytes] | None:
        """The next answer, with who gave it; None when there will be no more."""
        while not self._answers:
            if not self.waiting:
                return None
            self._wake.clear()
            await self._wake.wait()
        return self._answers.popleft()


class Calls:
    """All questions that are out."""

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._last = 0

    def open(
        self,
        asked: Iterable[Asked],
        tell: Callable[[str, int], bool],
        command: str = "",
        *,
        is_heard: bool = True,
    ) -> tuple[int, Call]:
        """Ask: `tell` is called with each session and the question's number; whether it is there."""
        self._last += 1
        number = self._last
        call = self._open[number] = Call(asked, command, is_heard=is_heard)
        for session in list(call.waiting):
            if not tell(session, number):
                call.gone(session)
        self._let_go(number, call)
        return number, call

    def _let_go(self, number: int, call: Call) -> None:
        if not call.is_heard and not call.waiting:
            self._open.pop(number, None)

    async def settled(self, commands: Container[str], sessions: Container[str]) -> None:
        """Wait until these sessions have answered all that was asked of these commands so far."""
        for call in list(self._open.values()):
            if call.command in commands:
                await call.settled(sessions)

    def end(self, number: int) -> None:
        """Wait for nobody any more."""
        call = self._open.get(number)
        if call is not None:
            for session in list(call.waiting):
                call.gone(session)

    def close(self, number: int) -> None:
        """Take no more answers to it."""
        self._open.pop(number, None)

    def answered(self, session: str, reply: control_pb2.ControlReply) -> None:
        """Take an answer; one that comes too late is nobody's."""
        call = self._open.get(reply.id)
        if call is not None:
            call.answered(session, reply.body)
            self._let_go(reply.id, call)

    def gone(self, session: str) -> None:
        """The session's stream is gone: it will not answer on it."""
        for number, call in list(self._open.items()):
            call.gone(session)
            self._let_go(number, call)
