"""What is seen of the wire itself: a worker's stream without a worker, and how many bytes a client sent."""

import os
import queue
import socket
import struct
from collections.abc import Iterator

import grpc
import psutil

from qbroker_proto.v1 import worker_pb2, worker_pb2_grpc

_ACKED_AT = 120
"""Where `tcpi_bytes_acked` stands in Linux's `struct tcp_info`."""


def bytes_sent(port: int) -> int:
    """What this process has sent to the port and the other end has received, over the connections that are up."""
    total = 0
    for link in psutil.Process().net_connections("tcp"):
        if link.raddr[1:] == (port,):
            with socket.socket(fileno=os.dup(link.fd)) as sock:
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _ACKED_AT + 8)
            total += struct.unpack_from("=Q", info, _ACKED_AT)[0]
    return total


def first_delivery(target: str, *, queue_name: str, task: str, timeout_s: float) -> str:
    """Wait for the broker at `target`, register for `task`, and give the first delivery's id."""
    # A refused connection is tried again at once: the time until the broker listens is its start.
    options = (
        ("grpc.initial_reconnect_backoff_ms", 20),
        ("grpc.min_reconnect_backoff_ms", 20),
        ("grpc.max_reconnect_backoff_ms", 20),
    )
    outgoing: queue.SimpleQueue[worker_pb2.WorkRequest | None] = queue.SimpleQueue()
    register = worker_pb2.Register(
        session_id="bench",
        name="bench@localhost",
        queues=[queue_name],
        tasks=[task],
        prefetch_count=1,
        hostname="localhost",
        pool="bench",
        concurrency=1,
    )
    outgoing.put(worker_pb2.WorkRequest(seq=1, register=register, prefetch_count=1))

    def requests() -> Iterator[worker_pb2.WorkRequest]:
        while (request := outgoing.get()) is not None:
            yield request

    with grpc.insecure_channel(target, options=options) as channel:
        replies = worker_pb2_grpc.WorkerStub(channel).Work(
            requests(), timeout=timeout_s, wait_for_ready=True
        )
        try:
            for reply in replies:
                for delivery in reply.deliveries:
                    outgoing.put(worker_pb2.WorkRequest(seq=2, leave=True))
                    return str(delivery.id)
        finally:
            outgoing.put(None)
            replies.cancel()
    raise RuntimeError(f"the broker at {target} ended the stream before it delivered anything")
