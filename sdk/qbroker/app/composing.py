"""What a canvas becomes at the app: messages to publish, or to be sent by a worker with the end of a task.

Stands between `workflow`, which knows what waits for what, and the app, which knows tasks and settings.
"""

from collections.abc import Mapping, Sequence

from qbroker import signals
from qbroker.app.sending import Call
from qbroker.app.workflow import (
    Layout,
    Place,
    Plan,
    inherit,
    is_composite,
    lay_out,
    place_of,
    write,
)
from qbroker.canvas import Signature, _chord, group
from qbroker.exceptions import LimitExceeded, Replaced
from qbroker.ids import uuid7
from qbroker.local import PromiseProxy
from qbroker.request import Context, current_request
from qbroker.result import GroupResult
from qbroker.serialization import Value

__all__ = ["WORKFLOW", "Composer", "Outgoing"]

WORKFLOW = "celery.workflow"
"""What stands for the task's name in errors about a whole workflow."""
_BYTES_MAX = 60 * 1024 * 1024
"""What a request to the broker may carry."""

Told = list[tuple[str, dict[str, Value]]]
"""What after_task_publish is told, by the names of the tasks."""


class Outgoing:
    """A canvas on its way: what its caller gets, what is published, and what is told after that."""

    __slots__ = ("calls", "result", "told")

    def __init__(self, result: Value, calls: list[Call], told: Told) -> None:
        self.result = result
        self.calls = calls
        self.told = told


class Composer:
    """Makes messages of canvases, with an app's tasks and settings."""

    def __init__(self, app: Value) -> None:
        self._app = app

    def outgoing(
        self,
        sig: Signature[Value],
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        options: Mapping[str, Value],
    ) -> Outgoing:
        """What is published for a canvas. A member for the chord of the running task leaves with that one's end."""
        options = dict(options)
        task_id = options.pop("task_id", None)
        request = current_request.get()
        is_inside = request is not None and not request.called_directly
        root_id = options.pop("root_id", None) or sig.options.get("root_id")
        if root_id is None and request is not None and is_inside:
            root_id = request.root_id
        parent_id = options.pop("parent_id", None) or sig.options.get("parent_id")
        chord_id = options.pop("chord", None) or sig.options.get("chord")
        if chord_id is not None and request is not None and request.chord == chord_id:
            return self._member(request, sig, task_id, root_id)
        if chord_id is not None and not is_composite(sig):
            raise TypeError(
                f"the call of {sig.task!r} has the option 'chord', which only a member that add_to_chord() made "
                "may have; make a chord of the tasks and their body instead"
            )
        plan = lay_out(sig, args, kwargs, options, app=self._app, task_id=task_id)
        layout, told = self._write(plan, root_id, parent_id)
        result = layout.result
        if isinstance(sig, group) and len(result) == 1 and isinstance(result[0], GroupResult):
            # A group of nothing but a chain that ends in a group is that group.
            result = result[0]
        return Outgoing(result, self._cut(layout), told)

    def _write(
        self, plan: Plan, root_id: str | None, parent_id: str | None, nesting: int = 0
    ) -> tuple[Layout, Told]:
        told: Told = []

        def prepare_one(
            sig: Signature[Value],
            args: Sequence[Value],
            kwargs: Mapping[str, Value],
            options: dict[str, Value],
            *,
            is_checked: bool,
        ) -> Call:
            task = sig._known_task()  # noqa: SLF001 - a signature's own
            if type(task) is PromiseProxy:
                task = task._get_current_object()  # noqa: SLF001 - each look through the proxy costs more than this
            if is_checked and task is not None and task.typing:
                task.check_arguments(args, kwargs)
            name = sig.task
            call: Call
            call, one = self._app.prepare(name, args, kwargs, task, options)
            if one is not None:
                told.append((name, one))
            return call

        layout = write(plan, prepare_one, root_id=root_id, parent_id=parent_id, nesting=nesting)
        return layout, told

    def _cut(self, layout: Layout) -> list[Call]:
        """The messages of a canvas: a workflow, or where one is enough a task's, or several where one is too much."""
        calls = layout.calls
        if len(calls) <= 1 and not layout.joins:
            return calls
        bytes_max = _BYTES_MAX if layout.joins else self._app.conf.task_message_bytes_max
        pieces: list[list[Call]] = [[]]
        size = 0
        for call in calls:
            size += len(call.message) + 8
            if size > bytes_max and pieces[-1]:
                pieces.append([])
                size = len(call.message) + 8
            pieces[-1].append(call)
        if len(pieces) > 1 and layout.joins:
            raise LimitExceeded(
                f"the workflow of {len(calls)} tasks has {sum(len(call.message) for call in calls)} bytes; "
                f"the limit is {bytes_max}. Store large data elsewhere and pass references."
            )
        cut = []
        for piece in pieces:
            workflow_id = uuid7()
            message = layout.workflow(workflow_id, [call.message for call in piece])
            cut.append(Call(WORKFLOW, workflow_id, message, ignores_result=False))
        return cut

    def replaced(
        self, request: Context, sig: Signature[Value], args: Sequence[Value] = ()
    ) -> Replaced:
        """What a task raises to have a canvas take its place."""
        message = request.message
        assert message is not None, "only what came as a message is replaced"
        layout = self._in_place_of(
            message,
            sig,
            args,
            message.id,
            place_of(message),
            errbacks=list(message.errbacks),
            nesting=request.replaced_task_nesting + 1,
        )
        own = next(call.message for call in layout.calls if call.task_id == message.id)
        others = [call.message for call in layout.calls if call.task_id != message.id]
        follow_ups = [layout.workflow(uuid7(), others)] if others else []
        return Replaced("Replaced by new task", inherit(own, message), follow_ups)

    def _in_place_of(
        self,
        message: Value,
        sig: Signature[Value],
        args: Sequence[Value],
        task_id: str,
        place: Place | None,
        *,
        errbacks: Sequence[bytes] = (),
        nesting: int = 0,
    ) -> Layout:
        plan = lay_out(
            sig,
            args,
            None,
            {},
            app=self._app,
            task_id=task_id,
            is_forced=True,
            place=place,
            group_place=(message.group_id, message.group_index) if message.group_id else None,
            errbacks=errbacks,
        )
        layout, told = self._write(plan, message.root_id or message.id, message.id, nesting)
        for name, one in told:
            signals.after_task_publish.send(name, **one)
        return layout

    def _member(
        self, request: Context, sig: Signature[Value], task_id: str | None, root_id: str | None
    ) -> Outgoing:
        """A call that joins the chord which the running task is in, when that task ends."""
        message = request.message
        assert message is not None, "who is in a chord came as a message"
        member = sig.clone()
        member.options.pop("chord", None)
        own_id = task_id or sig.options.get("task_id") or uuid7()
        if isinstance(sig, _chord):
            # Its own id is its header's.
            own_id = sig.body.options.get("task_id") or uuid7()
        layout = self._in_place_of(message, member, (), own_id, Place(message.join_id, 0))
        mine = [call.message for call in layout.calls if call.task_id == own_id]
        others = [call.message for call in layout.calls if call.task_id != own_id]
        request.added_members = (*request.added_members, *mine)
        if others:
            request.follow_ups = (*request.follow_ups, layout.workflow(uuid7(), others))
        return Outgoing(layout.result, [], [])
