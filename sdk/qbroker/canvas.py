"""Calls as values: a Signature is a task's name with its arguments and options, not yet sent.

It is a dict of Celery's keys, so it can travel as an argument of another task.
"""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar, cast

from qbroker import _state
from qbroker.result import AsyncResult, EagerResult
from qbroker.serialization import Value

__all__ = ["Signature", "maybe_signature", "signature", "subtask"]

R = TypeVar("R")


class Signature(dict[str, Value], Generic[R]):
    """A call that can be kept, changed, passed on and made.

    Arguments given later are put before those it has; keyword arguments and options given later win. An
    immutable one takes no further arguments.
    """

    _app: Value

    def __init__(
        self,
        task: Value = None,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        options: Mapping[str, Value] | None = None,
        type: Value = None,  # noqa: A002 - Celery's name
        subtask_type: str | None = None,
        immutable: bool = False,  # noqa: FBT001, FBT002 - Celery's signature
        app: Value = None,
        **more_options: Value,
    ) -> None:
        self._app = app
        self._type = type
        if isinstance(task, dict):
            super().__init__(task)
            return
        if not isinstance(task, str) and task is not None:
            self._type = task
        super().__init__(
            task=task if isinstance(task, str) or task is None else task.name,
            args=tuple(args or ()),
            kwargs=dict(kwargs or {}),
            options={**(options or {}), **more_options},
            subtask_type=subtask_type,
            immutable=immutable,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Value], app: Value = None) -> "Signature[Value]":
        """The signature that `data` describes."""
        return Signature(dict(data), app=app)

    @property
    def app(self) -> Value:
        """The app the call is made with."""
        if self._app is not None:
            return self._app
        return self._type.app if self._type is not None else _state.get_current_app()

    @property
    def type(self) -> Value:
        """The task itself."""
        return self._type or self.app.tasks[self["task"]]

    @property
    def task(self) -> str:
        """The task's name."""
        return cast("str", self["task"])

    @property
    def name(self) -> str:
        """The task's name."""
        return self.task

    @property
    def args(self) -> tuple[Value, ...]:
        """Its arguments."""
        return tuple(self["args"])

    @property
    def kwargs(self) -> dict[str, Value]:
        """Its keyword arguments."""
        return cast("dict[str, Value]", self["kwargs"])

    @property
    def options(self) -> dict[str, Value]:
        """Its options, as `apply_async` takes them."""
        return cast("dict[str, Value]", self["options"])

    @property
    def immutable(self) -> bool:
        """Whether it takes no further arguments."""
        return bool(self.get("immutable"))

    @property
    def id(self) -> str | None:
        """The id its call will have, where one was chosen."""
        return self.options.get("task_id")

    def _merge(
        self,
        args: Sequence[Value] | None,
        kwargs: Mapping[str, Value] | None,
        options: Mapping[str, Value],
    ) -> tuple[tuple[Value, ...], dict[str, Value], dict[str, Value]]:
        merged = {**self.options, **options}
        if self.immutable:
            return self.args, self.kwargs, merged
        return (*(args or ()), *self.args), {**self.kwargs, **(kwargs or {})}, merged

    def __call__(self, *partial_args: Value, **partial_kwargs: Value) -> R:
        """Call the task right here, like a function."""
        args, kwargs, _ = self._merge(partial_args, partial_kwargs, {})
        value: R = self.type(*args, **kwargs)
        return value

    def delay(self, *partial_args: Value, **partial_kwargs: Value) -> AsyncResult[R]:
        """Send the call."""
        return self.apply_async(partial_args, partial_kwargs)

    def apply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> AsyncResult[R]:
        """Send the call, with further arguments and options."""
        args, kwargs, options = self._merge(args, kwargs, options)
        task = self._type or self.app.tasks.get(self.task)
        sent: AsyncResult[R] = (
            self.app.send_task(self.task, args, kwargs, **options)
            if task is None
            else task.apply_async(args, kwargs, **options)
        )
        return sent

    async def aapply_async(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> AsyncResult[R]:
        """Do the same without blocking the event loop."""
        args, kwargs, options = self._merge(args, kwargs, options)
        task = self._type or self.app.tasks.get(self.task)
        sent: AsyncResult[R] = await (
            self.app.asend_task(self.task, args, kwargs, **options)
            if task is None
            else task.aapply_async(args, kwargs, **options)
        )
        return sent

    async def adelay(self, *partial_args: Value, **partial_kwargs: Value) -> AsyncResult[R]:
        """Send the call without blocking the event loop."""
        return await self.aapply_async(partial_args, partial_kwargs)

    def apply(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> EagerResult[R]:
        """Run the task right here, as a worker would."""
        args, kwargs, options = self._merge(args, kwargs, options)
        ran: EagerResult[R] = self.type.apply(args, kwargs, **options)
        return ran

    def clone(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        **options: Value,
    ) -> "Signature[R]":
        """A copy with further arguments and options; the original stays as it is."""
        args, kwargs, options = self._merge(args, kwargs, options)
        return Signature(
            self.task,
            args,
            dict(kwargs),
            options,
            type=self._type,
            subtask_type=self.get("subtask_type"),
            immutable=self.immutable,
            app=self._app,
        )

    partial = clone

    def set(self, immutable: bool | None = None, **options: Value) -> "Signature[R]":  # noqa: FBT001 - Celery's signature
        """Change options in place."""
        if immutable is not None:
            self["immutable"] = immutable
        self.options.update(options)
        return self

    def set_immutable(self, immutable: bool) -> None:  # noqa: FBT001 - Celery's signature
        """Say whether it takes further arguments."""
        self["immutable"] = immutable

    def replace(
        self,
        args: Sequence[Value] | None = None,
        kwargs: Mapping[str, Value] | None = None,
        options: Mapping[str, Value] | None = None,
    ) -> "Signature[R]":
        """A copy with other arguments or options in place of those it has."""
        copy = self.clone()
        if args is not None:
            copy["args"] = tuple(args)
        if kwargs is not None:
            copy["kwargs"] = dict(kwargs)
        if options is not None:
            copy["options"] = dict(options)
        return copy

    def __invert__(self) -> R:
        """Send the call and wait for its result."""
        return self.apply_async().get()

    def __reduce__(self) -> tuple[Value, ...]:
        return signature, (dict(self),)

    def __json__(self) -> dict[str, Value]:
        return dict(self)

    def __repr__(self) -> str:
        arguments = [repr(arg) for arg in self.args]
        arguments += [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"{self.task}({', '.join(arguments)})"


def signature(
    varies: Value,
    args: Sequence[Value] | None = None,
    kwargs: Mapping[str, Value] | None = None,
    options: Mapping[str, Value] | None = None,
    *,
    app: Value = None,
    immutable: bool = False,
    **more_options: Value,
) -> Signature[Value]:
    """A signature of a task, a task's name, or the dict a signature became on its way."""
    if isinstance(varies, Signature):
        return varies.clone()
    if isinstance(varies, dict):
        return Signature.from_dict(varies, app=app)
    merged = {**(options or {}), **more_options}
    return Signature(varies, args, kwargs, merged, immutable=immutable, app=app)


subtask = signature
"""Celery's old name for it."""


def maybe_signature(found: Value, app: Value = None) -> Value:
    """A dict that describes a signature as one; anything else as it is."""
    if isinstance(found, dict) and not isinstance(found, Signature) and "task" in found:
        return Signature.from_dict(found, app=app)
    return found
