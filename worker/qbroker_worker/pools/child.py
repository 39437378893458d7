"""The child of the prefork pool: takes batches, runs them, leaves results where a kill spares them."""

import logging
import os
import resource
import sys
from mmap import mmap
from socket import socket

from qbroker_worker import clock
from qbroker_worker.pools import frames
from qbroker_worker.pools.childguard import ChildGuard
from qbroker_worker.values import SUCCESS, Notice, Ran, Recycling, Runs

RING_S = 0.002
"""How much run time passes before results of an unfinished batch are announced."""

READ_BYTES = 64 * 1024

HANDLERS_S = 30.0
"""How long the handlers of a task may take that its hard time limit ended."""


_NEVER = Recycling()

logger = logging.getLogger(__name__)


def memory_kib() -> int:
    """The most memory this process has had resident."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most // 1024 if sys.platform == "darwin" else most


def encode_notice(notice: Notice) -> bytes:
    """A notice as a task's message would be."""
    name, why = notice.signal.encode(), notice.why.encode()
    head = frames.NOTICE_HEAD.pack(notice.number, len(name), len(why))
    return head + name + why + notice.message


def decode_notice(data: bytes) -> Notice:
    """The notice that was encoded."""
    number, name_size, why_size = frames.NOTICE_HEAD.unpack_from(data)
    rest = data[frames.NOTICE_HEAD.size :]
    name, why = rest[:name_size], rest[name_size : name_size + why_size]
    return Notice(name.decode(), number, rest[name_size + why_size :], why.decode())


class _Batches:
    """Whole batches out of a stream of bytes."""

    def __init__(self, source: socket) -> None:
        self._source = source
        self._data = b""

    def next(self) -> tuple[int, int, bytes] | None:
        """Number, count and body of the next batch; None when the parent is gone."""
        head = frames.BATCH.size
        if not self._fill(head):
            return None
        size, number, count = frames.BATCH.unpack_from(self._data)
        if not self._fill(head + size):
            return None
        body = self._data[head : head + size]
        self._data = self._data[head + size :]
        return number, count, body

    def _fill(self, size: int) -> bool:
        missing = size - len(self._data)
        if missing <= 0:
            return True
        parts = [self._data]
        while missing > 0:
            more = self._source.recv(max(missing, READ_BYTES))
            if not more:
                return False
            parts.append(more)
            missing -= len(more)
        self._data = b"".join(parts)
        return True


def serve(
    source: socket,
    claims: int,
    shared: mmap,
    guard: ChildGuard,
    runs: Runs,
    recycling: Recycling = _NEVER,
) -> None:
    """Run batches until the parent closes its end, or it is time for a fresh child.

    `claims` is read without blocking. What is in hand and not begun is for the parent to give to another.
    """
    batches = _Batches(source)
    run_count = 0
    tasks_max, memory_kib_max = recycling
    run, expire = runs.run, runs.expire
    now_ns = clock.monotonic_ns
    read, unpack, pack, bell = (
        os.read,
        frames.TASK.unpack_from,
        frames.RECORD.pack_into,
        frames.BELL,
    )
    task_size, record_size = frames.TASK.size, frames.RECORD.size
    words = memoryview(shared)[: frames.REGIONS[0]].cast("Q")
    source.sendall(bell.pack(frames.READY, 0, 0, 0))
    while (batch := batches.next()) is not None:
        number, count, body = batch
        word = frames.WORDS[number & 1]
        base = end = frames.REGIONS[number & 1]
        covered = number << 32
        words[word] = covered
        at = begun = 0
        unannounced_s = 0.0
        for index in range(count):
            attempt, flags, size = unpack(body, at)
            at += task_size
            try:
                token = read(claims, 1)
            except BlockingIOError:
                break  # the parent has taken back this task and all behind it
            if not token:
                return
            begun += 1
            message = body[at : at + size]
            at += size
            guard.claimed_ns = now_ns()
            if flags & frames.EXPIRED:
                guard.begin(None, HANDLERS_S)
                ran = expire(message, attempt, flags & frames.REDELIVERED != 0)
                guard.end()
            elif flags & frames.NOTICE:
                runs.notify(decode_notice(message))
                ran = Ran(SUCCESS, b"", requeue=False, runtime_s=0.0)
            else:
                ran = run(message, attempt, flags & frames.REDELIVERED != 0)
            outcome, result, requeue, runtime_s, level, line, more = ran
            text = line.encode("utf-8", "backslashreplace") if line else b""
            head = (index, outcome, requeue, runtime_s, level, len(result), len(text), len(more))
            text += more
            size = record_size + len(result) + len(text)
            if end + size <= base + frames.REGION_BYTES:
                pack(shared, end, *head)
                end += record_size
                shared[end : end + len(result)] = result
                end += len(result)
                if text:
                    shared[end : end + len(text)] = text
                    end += len(text)
                words[word] = covered | (end - base)
            else:
                record = frames.RECORD.pack(*head) + result + text
                source.sendall(bell.pack(frames.SPILL, number, begun, size) + record)
            run_count += 1
            if guard.is_overdue or run_count == tasks_max:
                return
            if memory_kib_max and memory_kib() > memory_kib_max:
                logger.warning(
                    "A child process makes place for a fresh one: it has grown to %d KiB, and the limit is %d.",
                    memory_kib(),
                    memory_kib_max,
                )
                return
            unannounced_s += runtime_s
            if unannounced_s >= RING_S and begun < count:
                source.sendall(bell.pack(frames.PROGRESS, number, begun, end - base))
                unannounced_s = 0.0
        source.sendall(bell.pack(frames.DONE, number, begun, end - base))
