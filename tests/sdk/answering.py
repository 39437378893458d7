"""Workers in a few lines that answer what they are asked: no tests."""

import json
import queue
import threading
from collections.abc import Callable, Iterator

import grpc

from qbroker.serialization import Value
from qbroker_proto.v1.control_pb2 import ControlReply, ControlRequest, Event
from qbroker_proto.v1.worker_pb2 import Register, WorkReply, WorkRequest

Answers = Callable[[str, dict[str, Value], list[str]], Value]


class Silence(Exception):
    """Raised by answers to give none."""


class AnsweringWorker:
    """One that is connected, and answers by a function of (command, arguments, words)."""

    def __init__(
        self,
        url: str,
        name: str,
        answers: Answers,
        *,
        queues: tuple[str, ...] = ("celery",),
        tasks: tuple[str, ...] = ("proj.add",),
        prefetch_count: int = 0,
    ) -> None:
        self.name = name
        self.asked: list[ControlRequest] = []
        self.is_wanted = False
        self._answers = answers
        self._out: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._channel = grpc.insecure_channel(url.removeprefix("qbroker://"))
        work: Callable[..., Iterator[bytes]] = self._channel.stream_stream(
            "/qbroker.v1.Worker/Work"
        )
        self._replies = work(iter(self._out.get, None))
        self._say(
            register=Register(
                session_id=f"session of {name}",
                name=name,
                queues=queues,
                tasks=tasks,
                prefetch_count=prefetch_count,
                pid=7,
                pool="solo",
                concurrency=1,
                version="1",
            )
        )
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        assert self._is_up.wait(10)

    def _say(self, **fields: Value) -> None:
        self._out.put(WorkRequest(**fields).SerializeToString())

    def tell(self, type_: str, **fields: Value) -> None:
        """Send an event."""
        event = {"type": type_, "hostname": self.name, "timestamp": 5.0, "pid": 7, **fields}
        self._say(events=[Event(type=type_, body=json.dumps(event).encode())])

    def _work(self) -> None:
        try:
            for raw in self._replies:
                reply = WorkReply.FromString(raw)
                if reply.HasField("events_wanted"):
                    self.is_wanted = reply.events_wanted
                if reply.HasField("registered"):
                    self._is_up.set()
                for control in reply.controls:
                    self._answer(control)
        except grpc.RpcError:
            return  # it left

    def _answer(self, control: ControlRequest) -> None:
        self.asked.append(control)
        arguments = json.loads(control.arguments) if control.arguments else {}
        try:
            answer = self._answers(control.command, arguments, list(control.words))
        except Silence:
            return
        body = json.dumps(answer).encode()
        self._say(control_replies=[ControlReply(id=control.id, body=body)])

    def leave(self) -> None:
        """Be gone."""
        self._say(seq=1, leave=True)
        self._out.put(None)
        self._thread.join(10)
        self._channel.close()
