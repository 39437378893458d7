"""Signatures and annotations of users' functions, read so that no annotation can raise.

Python 3.14 evaluates annotations when they are read, and a name that is imported for the type checker alone does not exist then.
"""

import contextlib
import inspect
import sys
import types
import typing
from collections.abc import Callable, Mapping

from qbroker.serialization import Value

__all__ = ["annotations_of", "hints_of", "signature_of"]


def signature_of(fun: Callable[..., Value]) -> inspect.Signature:
    """The parameters of a function; their annotations are not evaluated.

    Raises TypeError or ValueError for an object whose parameters Python does not know.
    """
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415 - new in 3.14

        return inspect.signature(fun, annotation_format=Format.STRING)
    try:
        return inspect.signature(fun)
    except (TypeError, ValueError):
        raise
    except Exception:  # noqa: BLE001 - an annotation is any expression
        # Python looks at the annotations of each callable object, which may be made on demand.
        return inspect.signature(types.MethodType(type(fun).__call__, fun))


def annotations_of(fun: Callable[..., Value]) -> Mapping[str, Value]:
    """The annotations of a function, as strings or forward references where they cannot be evaluated."""
    with contextlib.suppress(Exception):  # an annotation is any expression
        return getattr(fun, "__annotations__", None) or {}
    if sys.version_info >= (3, 14):
        from annotationlib import Format, get_annotations  # noqa: PLC0415 - new in 3.14

        try:
            return get_annotations(fun, format=Format.FORWARDREF)
        except Exception:  # noqa: BLE001 - likewise; 3.14.0 lets through all but NameError
            return get_annotations(fun, format=Format.STRING)
    return {}


def hints_of(fun: Callable[..., Value]) -> dict[str, Value]:
    """The annotations of a function as types, without those that cannot be evaluated."""
    names = getattr(inspect.unwrap(fun), "__globals__", {})
    hints: dict[str, Value] = {}
    for name, annotation in annotations_of(fun).items():
        # One by one, so that one unknown name does not hide the others.
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(holder, names)
        except Exception:  # noqa: BLE001, S112 - an annotation is any expression
            continue
    return hints
