"""A child's loop, run in this process against the far ends of its sockets."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from qbroker_worker.pools import child, frames, ledger
from qbroker_worker.pools.childguard import ChildGuard
from qbroker_worker.pools.ledger import Child
from tests.worker.toys import delivery, echoes, run


@contextmanager
def _serving() -> Iterator[Child]:
    near, far = socket.socketpair()
    claims = os.pipe()
    for fd in claims:
        os.set_blocking(fd, False)
    with ledger.memory() as memory:
        memory.truncate(frames.SHARED_BYTES)
        parent = Child(1, link=near, claims=claims, memory=memory.fileno())
        guard = ChildGuard(parent.shared, far)
        serving = threading.Thread(
            target=child.serve, args=(far, claims[0], parent.shared, guard, run)
        )
        del guard
        serving.start()
        assert _bell(parent) == (frames.READY, 0, 0, 0)
        yield parent
        near.shutdown(socket.SHUT_WR)
        serving.join()
        far.close()
        parent.close()


def _bell(parent: Child) -> tuple[int, int, int, int]:
    found: tuple[int, int, int, int] = frames.BELL.unpack(
        parent.link.recv(frames.BELL.size, socket.MSG_WAITALL)
    )
    return found


def test_a_batch_is_run_and_its_results_lie_in_its_region() -> None:
    with _serving() as parent:
        parent.link.sendall(parent.encode(echoes(3)))

        kind, number, begun, end = _bell(parent)
        found = parent.records(parent.batches[0], end, begun)

    assert (kind, number, begun) == (frames.DONE, 1, 3)
    assert [done.result for done in found] == [b"0", b"1", b"2"]


def test_a_task_without_a_claim_is_not_begun_nor_any_behind_it() -> None:
    with _serving() as parent:
        frame = parent.encode(echoes(3))
        stolen = parent.steal()
        parent.link.sendall(frame)

        kind, _, begun, _ = _bell(parent)

    assert len(stolen) == 3
    assert (kind, begun) == (frames.DONE, 0)


def test_a_result_too_large_for_the_region_travels_by_the_socket() -> None:
    with _serving() as parent:
        parent.link.sendall(parent.encode([delivery("large", frames.REGION_BYTES)]))

        kind, _, _, size = _bell(parent)
        record = parent.link.recv(size, socket.MSG_WAITALL)
        done = _bell(parent)

    assert kind == frames.SPILL
    assert len(record) == frames.RECORD.size + frames.REGION_BYTES
    assert done[0] == frames.DONE
