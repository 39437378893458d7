"""Tasks whose arguments are pydantic models: `@app.task(pydantic=True)`.

The function is called with models where its parameters are annotated with models. Dicts travel: the caller's models are dumped,
and so is the model that the function returns. A model is sent only when the task gets an equal model back from the dict; any
other is an EncodeError at the call, because a masked secret or an excluded field would arrive as another value.
"""

import functools
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence

from qbroker.exceptions import EncodeError, ImproperlyConfigured
from qbroker.hints import hints_of, signature_of
from qbroker.serialization import Value, lost_fields

__all__ = ["Models", "validating"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def validating(fun: Callable[..., Value], facts: "Models") -> Callable[..., Value]:
    """The function, called with models in place of dicts, its own model returned as a dict."""
    if inspect.iscoroutinefunction(fun):

        @functools.wraps(fun)
        async def run_async(*args: Value, **kwargs: Value) -> Value:
            args, kwargs = facts.validated(args, kwargs)
            return facts.dumped(await fun(*args, **kwargs))

        return run_async

    @functools.wraps(fun)
    def run(*args: Value, **kwargs: Value) -> Value:
        args, kwargs = facts.validated(args, kwargs)
        return facts.dumped(fun(*args, **kwargs))

    return run


class Models:
    """The models of a function's parameters, found at the first call, because annotations may name what comes later.

    `context` reaches the models' validators, with the app and the task's name; `dump_kwargs` are those of `model_dump`, with
    mode="json" unless they name a mode.
    """

    def __init__(
        self,
        fun: Callable[..., Value],
        *,
        app: Value,
        name: str,
        is_bound: bool,
        strict: bool,
        context: Mapping[str, Value] | None,
        dump_kwargs: Mapping[str, Value] | None,
    ) -> None:
        self._fun = fun
        self._name = name
        self._is_bound = is_bound
        self._strict = strict
        self._context = {**(context or {}), "celery_app": app, "celery_task_name": name}
        self._how = {"mode": "json", **(dump_kwargs or {})}
        self._is_dumped_as_asked = dump_kwargs is not None
        self._base: Value = None
        self._models: dict[str, Value] | None = None
        self._returned: Value = None

    def _found(self) -> dict[str, Value]:
        if self._models is None:
            try:
                base = self._base = importlib.import_module("pydantic").BaseModel
            except ModuleNotFoundError as exc:
                raise ImproperlyConfigured(
                    "You need to install pydantic to use pydantic model serialization."
                ) from exc
            self._signature = signature_of(self._fun)
            hints = hints_of(self._fun)
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
                bound.arguments[name] = self._validate(model, value)
        return bound.args, bound.kwargs

    def _validate(self, model: Value, value: Value) -> Value:
        return model.model_validate(value, strict=self._strict, context=self._context)

    def dumped(self, value: Value) -> Value:
        """The returned value; a model that the function is annotated with becomes a dict.

        Raises EncodeError for a value that would be masked or cut. `pydantic_dump_kwargs` are the author's word on what is
        dumped, so with them nothing is checked.
        """
        if self._returned is None or not isinstance(value, self._returned):
            return value
        found = value.model_dump(**self._how)
        if not self._is_dumped_as_asked:
            lost = [name for name in lost_fields(value, found, self._context) if name in found]
            if lost:
                raise EncodeError(
                    f"the {type(value).__name__} that task {self._name!r} returned would arrive with other values of "
                    f"{', '.join(map(repr, lost))}; return a dict, or give the task pydantic_dump_kwargs"
                )
        return found

    # -- at the caller

    def sent(self, args: Value, kwargs: Value, *, is_fed: bool = False) -> tuple[Value, Value]:
        """The arguments of a call, with dicts for the models that the task gets back as they are.

        Arguments without models are answered as they are given. With `is_fed` the first argument is not among them, because
        another task returns it.
        """
        models = self._found()
        places, named = () if args is None else args, {} if kwargs is None else kwargs
        if not isinstance(places, list | tuple) or not isinstance(named, Mapping):
            return args, kwargs  # refused with other calls of the kind
        if not any(isinstance(value, self._base) for value in (*places, *named.values())):
            return args, kwargs
        parameters = self._signature.parameters
        names = [name for name, one in parameters.items() if one.kind in _POSITIONAL]
        names = names[self._is_bound + is_fed :]
        by_place = [
            self._sent_one(models.get(names[place]) if place < len(names) else None, value)
            for place, value in enumerate(places)
        ]
        by_name = {
            name: self._sent_one(
                models.get(name)
                if name in parameters and parameters[name].kind in _BY_NAME
                else None,
                value,
            )
            for name, value in named.items()
        }
        if any(new is not old for new, old in zip(by_place, places, strict=True)):
            args = by_place if isinstance(places, list) else tuple(by_place)
        if any(by_name[name] is not value for name, value in named.items()):
            kwargs = by_name
        return args, kwargs

    def _sent_one(self, model: Value, value: Value) -> Value:
        if model is None or not isinstance(value, self._base) or hasattr(type(value), "__json__"):
            return value
        try:
            found = value.model_dump(**self._how)
            # Equality of models includes the class, so a subclass is not sent in its base's place.
            return found if self._validate(model, found) == value else value
        except Exception:  # noqa: BLE001 - the models' own code runs here, and some works in workers alone
            return value

    def refuse_rest(self, args: Value, kwargs: Value) -> None:
        """Raise EncodeError for a model that `sent` has left: the task would not get it as it is."""
        if self._base is None:
            self._found()
        for where, value in _leaves(args or (), kwargs or {}):
            if isinstance(value, self._base) and not hasattr(type(value), "__json__"):
                raise EncodeError(
                    f"{where} of task {self._name!r} is the model {type(value).__name__}, which would not arrive as it is: "
                    f"{self._why(value)}; pass a dict, as {type(value).__name__}.model_dump() makes one"
                )

    def _why(self, value: Value) -> str:
        expected = [model for model in self._found().values() if isinstance(value, model)]
        if not expected:
            return "no parameter is annotated with that model"
        if type(value) not in expected:
            return f"the parameter is annotated with {expected[0].__name__}, which has other fields"
        try:
            lost = lost_fields(value, value.model_dump(**self._how), self._context)
        except Exception as exc:  # noqa: BLE001 - see `_sent_one`
            return f"{type(exc).__name__}: {str(exc).partition(chr(10))[0]}"
        if not lost:
            return (
                "the parameter is annotated with something else, or the model refuses what it dumps"
            )
        return f"what it dumps has another value of {', '.join(map(repr, lost))}"


def _leaves(args: Sequence[Value], kwargs: Mapping[str, Value]) -> Iterator[tuple[str, Value]]:
    """Each value in the arguments, with words for the argument that it is in."""
    left = [(f"argument {place}", value) for place, value in enumerate(args)]
    left += [(f"argument {name!r}", value) for name, value in kwargs.items()]
    while left:
        where, value = left.pop()
        if isinstance(value, Mapping):
            left += [(where, one) for one in value.values()]
        elif isinstance(value, list | tuple | set | frozenset):
            left += [(where, one) for one in value]
        else:
            yield where, value


def _model(hint: Value, base: type) -> Value:
    """The model that a parameter is annotated with, as itself or as optional; else None."""
    origin: Value = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        others = [one for one in typing.get_args(hint) if one is not type(None)]
        if len(others) != 1:
            return None
        hint = others[0]
    return hint if isinstance(hint, type) and issubclass(hint, base) else None
