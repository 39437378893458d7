"""A broker in a few lines: it keeps what it is given in memory, and runs it when told to.

Honest to the .proto files in what clients can see: confirms in order, duplicates by id, state and
subscription in one step, a final state ends a subscription. Run as a program, it prints its port, and
ends each task at once with its first argument as result.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc

from qbroker import envelope, serialization
from qbroker.serialization import Value
from qbroker_proto.v1.admin_pb2 import StatusReply, StatusRequest
from qbroker_proto.v1.message_pb2 import Message, Result
from qbroker_proto.v1.producer_pb2 import PublishReply, PublishRequest, Refusal
from qbroker_proto.v1.results_pb2 import (
    STAGE_DONE,
    STAGE_QUEUED,
    STAGE_UNKNOWN,
    ForgetReply,
    ForgetRequest,
    TaskState,
    WatchReply,
    WatchRequest,
)

Judge = Callable[[Message], Refusal | None]
Run = Callable[[Message], TaskState | None]


class FakeBroker:
    """Listens on a free port from `start` to `stop`; `port` may be given to come back at one."""

    def __init__(self, run: Run | None = None, judge: Judge | None = None) -> None:
        self.run = run
        self.judge = judge
        self.messages: dict[str, Message] = {}
        self.requests: list[PublishRequest] = []
        self.duplicates = 0
        self.watched: list[str] = []
        self.streams_opened = 0
        self.confirms = threading.Event()
        self.confirms.set()
        self.published = threading.Event()
        self.port = 0
        self._lock = threading.Condition()
        self._states: dict[str, TaskState] = {}
        self._server: grpc.Server | None = None
        self._running = False

    @property
    def url(self) -> str:
        return f"qbroker://127.0.0.1:{self.port}"

    def start(self, port: int = 0) -> "FakeBroker":
        server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        services: dict[str, dict[str, Value]] = {
            "Producer": {
                "Publish": grpc.stream_stream_rpc_method_handler(
                    self._publish, PublishRequest.FromString, PublishReply.SerializeToString
                )
            },
            "Results": {
                "Watch": grpc.stream_stream_rpc_method_handler(
                    self._watch, WatchRequest.FromString, WatchReply.SerializeToString
                ),
                "Forget": grpc.unary_unary_rpc_method_handler(
                    self._forget, ForgetRequest.FromString, ForgetReply.SerializeToString
                ),
            },
            "Admin": {
                "Status": grpc.unary_unary_rpc_method_handler(
                    self._status, StatusRequest.FromString, StatusReply.SerializeToString
                )
            },
        }
        for service, handlers in services.items():
            server.add_generic_rpc_handlers(
                (grpc.method_handlers_generic_handler(f"qbroker.v1.{service}", handlers),)
            )
        self.port = server.add_insecure_port(f"127.0.0.1:{port}")
        self._running = True
        server.start()
        self._server = server
        return self

    def stop(self) -> None:
        with self._lock:
            self._running = False
            self._lock.notify_all()
        self.confirms.set()
        assert self._server is not None
        self._server.stop(0).wait()

    def end(self, task_id: str, **fields: Value) -> None:
        """Give a task a state, final unless told otherwise."""
        state = TaskState(id=task_id, **{"is_final": True, "stage": STAGE_DONE, **fields})
        with self._lock:
            self._states[task_id] = state
            self._lock.notify_all()

    def succeed(self, task_id: str, value: Value) -> None:
        self.end(task_id, state="SUCCESS", result=success(value))

    def _publish(
        self, requests: Iterator[PublishRequest], context: grpc.ServicerContext
    ) -> Iterator[PublishReply]:
        self.streams_opened += 1
        for request in requests:
            self.requests.append(request)
            reply = PublishReply(seq=request.seq)
            for index, raw in enumerate(request.messages):
                message = Message.FromString(raw)
                refusal = self.judge(message) if self.judge else None
                if refusal is not None:
                    refusal.index = index
                    reply.refusals.append(refusal)
                elif message.id in self.messages:
                    self.duplicates += 1
                    reply.duplicates.append(index)
                else:
                    self.messages[message.id] = message
                    state = self.run(message) if self.run else None
                    with self._lock:
                        self._states[message.id] = state or TaskState(
                            id=message.id, stage=STAGE_QUEUED, state="PENDING"
                        )
                        self._lock.notify_all()
            self.published.set()
            self.confirms.wait()
            if not self._running:
                return
            yield reply

    def _state(self, task_id: str) -> TaskState:
        return self._states.get(
            task_id, TaskState(id=task_id, stage=STAGE_UNKNOWN, state="PENDING")
        )

    def _watch(
        self, requests: Iterator[WatchRequest], context: grpc.ServicerContext
    ) -> Iterator[WatchReply]:
        watched: dict[str, TaskState | None] = {}
        once: list[str] = []
        is_over = threading.Event()

        def listen() -> None:
            try:
                for request in requests:
                    with self._lock:
                        subscribed = [*request.watch, *request.ends]
                        self.watched.extend(subscribed)
                        once.extend(request.read)
                        watched.update(dict.fromkeys(subscribed))
                        for task_id in request.unwatch:
                            watched.pop(task_id, None)
                        self._lock.notify_all()
            except grpc.RpcError:
                pass
            finally:
                is_over.set()
                with self._lock:
                    self._lock.notify_all()

        context.add_callback(is_over.set)
        threading.Thread(target=listen, daemon=True).start()
        while self._running and not is_over.is_set():
            reply = WatchReply()
            with self._lock:
                reply.states.extend(self._state(task_id) for task_id in once)
                once.clear()
                for task_id, told in list(watched.items()):
                    state = self._state(task_id)
                    if state != told:
                        reply.states.append(state)
                        watched[task_id] = state
                        if state.is_final:
                            del watched[task_id]
                if not reply.states:
                    self._lock.wait(0.2)
                    continue
            yield reply

    def _forget(self, request: ForgetRequest, context: grpc.ServicerContext) -> ForgetReply:
        with self._lock:
            gone = [self._states.pop(task_id, None) for task_id in request.ids]
        return ForgetReply(forgotten_count=sum(state is not None for state in gone))

    def _status(self, request: StatusRequest, context: grpc.ServicerContext) -> StatusReply:
        return StatusReply(version="fake", engine="memory")


def success(value: Value) -> bytes:
    """A serialized Result of a task that returned."""
    return Result(
        state="SUCCESS",
        content_type="application/json",
        content_encoding="utf-8",
        body=serialization.json_encode(value),
        done_ms=1_700_000_000_000,
        worker="celery@fake",
    ).SerializeToString()


def failure(exc: BaseException, traceback: str = "Traceback: far away\n") -> bytes:
    """A serialized Result of a task that raised."""
    return Result(
        state="FAILURE",
        content_type="application/json",
        content_encoding="utf-8",
        body=serialization.json_encode(envelope.encode_exception(exc)),
        traceback=traceback,
    ).SerializeToString()


def echo(message: Message) -> TaskState:
    """End a task with its first argument."""
    args, _, _ = envelope.decode_body(message, frozenset({"application/json"}))
    return TaskState(
        id=message.id,
        stage=STAGE_DONE,
        state="SUCCESS",
        is_final=True,
        result=success(args[0] if args else None),
    )


if __name__ == "__main__":
    broker = FakeBroker(run=echo).start()
    sys.stdout.write(f"{broker.port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    broker.stop()
