"""The parent's half of a child: what it was handed, how far it has come, what it left behind."""

import array
import asyncio
import fcntl
import mmap
import os
import socket
import tempfile
import termios
from collections import deque
from typing import IO

from qbroker_worker.pools import frames
from qbroker_worker.values import Delivery, Finished

SILENT_LOOKS = 4
"""After so many looks at the same task a child counts as busy for long."""

ASLEEP_LOOKS = 40
"""After so many at a child that has not begun what it was handed, it is taken to be stopped, or stuck in the kernel."""

READ_BYTES = 64 * 1024


def memory() -> IO[bytes]:
    """A file for a child's shared memory, without a name; in memory where the system has such."""
    create = getattr(os, "memfd_create", None)
    if create is None:
        return tempfile.TemporaryFile()
    return os.fdopen(create("qbroker-child"), "r+b")


class Batch:
    """Deliveries handed over together; one becomes None when it has finished."""

    __slots__ = ("deliveries", "finished_count", "first", "number", "read_bytes")

    def __init__(self, number: int, first: int, deliveries: list[Delivery]) -> None:
        self.number = number
        self.first = first
        self.deliveries: list[Delivery | None] = list(deliveries)
        self.finished_count = 0
        self.read_bytes = 0


class Child:
    """The parent's half of a child: what it was handed, and how far it has come.

    Tasks are counted since the child's birth: those below `claimed()` have begun, those from there
    to `handed` wait in the child.
    """

    def __init__(
        self, number: int, *, link: socket.socket, claims: tuple[int, int], memory: int
    ) -> None:
        self.number = number
        self.pid = 0
        self.is_ready = False
        """It has said that it takes batches; a fresh interpreter has to load the app first."""
        self.link = link
        self.shared = mmap.mmap(memory, frames.SHARED_BYTES)
        self.batches: deque[Batch] = deque()
        self.batch_count = 0
        self.handed = 0
        self.finished = 0
        self.is_short = True
        self.is_withdrawn = False
        self.reported = 0
        self.looked_at = 0
        self.silent_looks = 0
        self.revoked: Delivery | None = None
        self.expired: Delivery | None = None
        """What it was at when its hard time limit was reached."""
        self.expired_s = 0.0
        self.is_retiring = False
        """It is to end when it has finished what it is at."""
        self.told: Delivery | None = None
        """The notice it was given last."""
        self.handles: Delivery | None = None
        """Whose failure handlers it was given to run."""
        self.interrupted_ns = 0
        """The soft deadline it was last signalled for."""
        self.watched_ns = 0
        self.timer: asyncio.TimerHandle | None = None
        """When the parent looks at its deadlines again."""
        self.stopped: asyncio.TimerHandle | None = None
        """Kills it when it was stopped by a signal and does not continue."""
        self.unread = bytearray()
        """Bells that have not arrived whole."""
        self.unsent = bytearray()
        self._claims_read, self._claims_write = claims
        self._words = memoryview(self.shared)[: frames.REGIONS[0]].cast("Q")
        self._unclaimed = array.array("i", (0,))

    def limit_results(self, bytes_max: int) -> None:
        """Have it refuse results larger than this."""
        self._words[frames.RESULT_BYTES] = bytes_max

    def claimed(self) -> int:
        """How many tasks have begun, as the kernel counts."""
        fcntl.ioctl(self._claims_read, termios.FIONREAD, self._unclaimed)
        return self.handed - self._unclaimed[0]

    def deadlines(self) -> tuple[int, int]:
        """When the soft and the hard limit of what runs are reached; 0: none, or reached and told already."""
        soft_ns, hard_ns = (self._words[at] for at in frames.DEADLINES)
        return 0 if soft_ns == self.interrupted_ns else soft_ns, hard_ns

    def limits_s(self) -> tuple[float, float]:
        """How long those limits are."""
        soft_us, hard_us = (self._words[at] for at in frames.LIMITS)
        return soft_us / 1e6, hard_us / 1e6

    def current(self) -> Delivery | None:
        """What it has begun last, if that is not known to have finished."""
        last = self.claimed() - 1
        for batch in self.batches:
            if 0 <= last - batch.first < len(batch.deliveries):
                return batch.deliveries[last - batch.first]
        return None

    def has(self, delivery: Delivery) -> bool:
        """Whether the delivery was handed over and is not known to have finished."""
        return any(found is delivery for batch in self.batches for found in batch.deliveries)

    def is_at(self, delivery: Delivery) -> bool:
        """Whether the child has begun the delivery, and is not known to have finished it."""
        claimed = self.claimed()
        return any(
            found is delivery
            for batch in self.batches
            for found in batch.deliveries[: max(0, claimed - batch.first)]
        )

    @property
    def is_long(self) -> bool:
        """Whether it has been in one task for long, or has long not begun what it was handed."""
        is_at_it = self.looked_at > self.finished
        return self.silent_looks >= (SILENT_LOOKS if is_at_it else ASLEEP_LOOKS)

    @property
    def is_idle(self) -> bool:
        """Whether all it was handed has finished or was taken back."""
        return self.finished == self.handed

    @property
    def takes_more(self) -> bool:
        """Whether a second batch may be laid behind the first: not if that is to take long."""
        return (
            len(self.batches) == 1
            and self.is_short
            and not self.is_withdrawn
            and not self.is_retiring
            and self.silent_looks < SILENT_LOOKS
        )

    def encode(self, deliveries: list[Delivery], flags: int = 0) -> bytes:
        """The frame that hands these over, noted and with their claims in the pipe."""
        self.batch_count += 1
        self.batches.append(Batch(self.batch_count, self.handed, deliveries))
        self.handed += len(deliveries)
        # Before the batch: a child that finds no claim takes it that the task was withdrawn.
        os.write(self._claims_write, bytes(len(deliveries)))
        parts = [b""]
        pack = frames.TASK.pack
        for _, attempt, is_redelivered, _, _, _, message in deliveries:
            parts.append(pack(attempt, is_redelivered | flags, len(message)))
            parts.append(message)
        size = sum(map(len, parts))
        parts[0] = frames.BATCH.pack(size, self.batch_count, len(deliveries))
        return b"".join(parts)

    def steal(self) -> list[Delivery]:
        """Take back what has not begun, nor was reported to have; oldest first."""
        count = self.handed - max(self.claimed(), self.reported)
        if not count:
            return []
        try:
            count = len(os.read(self._claims_read, count))
        except BlockingIOError:
            return []  # the child was faster
        self.is_withdrawn = True
        self.handed -= count
        stolen: list[Delivery] = []
        for batch in reversed(self.batches):
            kept = max(0, min(len(batch.deliveries), self.handed - batch.first))
            stolen[:0] = (found for found in batch.deliveries[kept:] if found is not None)
            del batch.deliveries[kept:]
        return stolen

    def records(self, batch: Batch, end: int | None, before: int) -> list[Finished]:
        """What has finished of `batch` up to `end` bytes of its region (None: as far as it goes).

        Tasks from number `before` on are left for later.
        """
        if end is None:
            word = self._words[frames.WORDS[batch.number & 1]]
            end = word & 0xFFFFFFFF if word >> 32 == batch.number & 0xFFFFFFFF else 0
        if end <= batch.read_bytes:
            return []
        base = frames.REGIONS[batch.number & 1]
        data = self.shared[base + batch.read_bytes : base + end]
        found, used = _records(data, batch, before - batch.first)
        batch.read_bytes += used
        batch.finished_count += len(found)
        self.finished += len(found)
        return found

    def spilled(self, batch: Batch, record: bytes) -> list[Finished]:
        """The same for a record that was too large for the region."""
        found, _ = _records(record, batch, len(batch.deliveries))
        batch.finished_count += len(found)
        self.finished += len(found)
        return found

    def close(self) -> None:
        """Let go of everything that belongs to it."""
        for timer in (self.timer, self.stopped):
            if timer is not None:
                timer.cancel()
        self.link.close()
        os.close(self._claims_read)
        os.close(self._claims_write)
        self._words.release()
        self.shared.close()


def _records(data: bytes, batch: Batch, before: int) -> tuple[list[Finished], int]:
    unpack, head = frames.RECORD.unpack_from, frames.RECORD.size
    deliveries = batch.deliveries
    found: list[Finished] = []
    at, size = 0, len(data)
    while at < size:
        index, outcome, requeue, runtime_s, level, result_size, line_size, more_size = unpack(
            data, at
        )
        if index >= before:
            break
        at += head
        result = data[at : at + result_size]
        at += result_size
        line = ""
        if line_size:
            line = data[at : at + line_size].decode()
            at += line_size
        more = b""
        if more_size:
            more = data[at : at + more_size]
            at += more_size
        delivery = deliveries[index]
        assert delivery is not None, "a task finishes once"
        deliveries[index] = None
        found.append(
            Finished(delivery, outcome, result, requeue != 0, runtime_s, level, line, more)
        )
    return found, at
