"""Tasks whose arguments are pydantic models: `@app.task(pydantic=True)`.

The function is called with models where its parameters are annotated as such; what comes over the wire are the dicts that
models dump, and what the function returns is dumped too. Callers may give models or dicts.
"""

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Mapping

from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import Value

__all__ = ["validating"]


def validating(
    fun: Callable[..., Value],
    *,
    app: Value,
    name: str,
    strict: bool,
    context: Mapping[str, Value] | None,
    dump_kwargs: Mapping[str, Value] | None,
) -> Callable[..., Value]:
    """The function, called with models in place of dicts, its own model returned as a dict.

    `context` reaches the models' validators, with the app and the task's name; `dump_kwargs` are those of
    `model_dump`, of which the default is mode="json".
    """
    facts = _Facts(fun, strict, {**(context or {}), "celery_app": app, "celery_task_name": name})
    how = {"mode": "json"} if dump_kwargs is None else dump_kwargs
    if inspect.iscoroutinefunction(fun):

        @functools.wraps(fun)
        async def run_async(*args: Value, **kwargs: Value) -> Value:
            args, kwargs = facts.validated(args, kwargs)
            return facts.dumped(await fun(*args, **kwargs), how)

        return run_async

    @functools.wraps(fun)
    def run(*args: Value, **kwargs: Value) -> Value:
        args, kwargs = facts.validated(args, kwargs)
        return facts.dumped(fun(*args, **kwargs), how)

    return run


class _Facts:
    """What is known of a function's models; found out when it is first called, because annotations may name what comes later."""

    def __init__(self, fun: Callable[..., Value], strict: bool, context: dict[str, Value]) -> None:  # noqa: FBT001 - one caller
        self._fun = fun
        self._strict = strict
        self._context = context
        self._models: dict[str, Value] | None = None
        self._returned: Value = None

    def _found(self) -> dict[str, Value]:
        if self._models is None:
            try:
                base = importlib.import_module("pydantic").BaseModel
            except ModuleNotFoundError as exc:
                raise ImproperlyConfigured(
                    "You need to install pydantic to use pydantic model serialization."
                ) from exc
            self._signature = inspect.signature(self._fun)
            hints = _hints(self._fun)
            found = {name: _model(hint, base) for name, hint in hints.items()}
            self._returned = found.pop("return", None)
            single = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
            self._models = {
                name: model
                for name, model in found.items()
                if model is not None and self._signature.parameters[name].kind not in single
            }
        return self._models

    def validated(
        self, args: tuple[Value, ...], kwargs: dict[str, Value]
    ) -> tuple[tuple[Value, ...], dict[str, Value]]:
        """The arguments, with models where the function wants them."""
        models = self._found()
        if not models:
            return args, kwargs
        bound = self._signature.bind(*args, **kwargs)
        for name, value in bound.arguments.items():
            model = models.get(name)
            if model is not None and value is not None:
                bound.arguments[name] = model.model_validate(
                    value, strict=self._strict, context=self._context
                )
        return bound.args, bound.kwargs

    def dumped(self, value: Value, how: Mapping[str, Value]) -> Value:
        """What the function returned; as a dict where it is the model that it is annotated with."""
        if self._returned is not None and isinstance(value, self._returned):
            return value.model_dump(**how)
        return value


def _hints(fun: Callable[..., Value]) -> dict[str, Value]:
    try:
        return typing.get_type_hints(fun)
    except (NameError, TypeError):
        # Some are for the type checker alone: the others count.
        return {
            name: hint
            for name, hint in getattr(fun, "__annotations__", {}).items()
            if not isinstance(hint, str)
        }


def _model(hint: Value, base: type) -> Value:
    """The model that a parameter is annotated with, as itself or as optional; else None."""
    origin: Value = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(hint) if one is not type(None)]
        if len(others) != 1:
            return None
        hint = others[0]
    return hint if isinstance(hint, type) and issubclass(hint, base) else None
