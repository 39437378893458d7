"""Exceptions and flags as text, by Celery's names."""

from collections.abc import Mapping

from qbroker.serialization import Value

__all__ = ["create_exception_cls", "strtobool", "subclass_exception"]

_FLAGS = {
    "1": True, "true": True, "yes": True, "on": True,
    "0": False, "false": False, "no": False, "off": False,
}  # fmt: skip


def subclass_exception(name: str, parent: type[Exception], module: str) -> type[Exception]:
    """An exception class of that name, which says that it is of that module."""
    return type(name, (parent,), {"__module__": module})


def create_exception_cls(
    name: str, module: str, parent: type[Exception] | None = None
) -> type[Exception]:
    """The same, of Exception where no parent is given."""
    return subclass_exception(name, parent or Exception, module)


def strtobool(term: Value, table: Mapping[str, bool] | None = None) -> Value:
    """The flag that a word stands for; what is no text is itself. TypeError for other words."""
    if not isinstance(term, str):
        return term
    known = _FLAGS if table is None else table
    if term.lower() not in known:
        raise TypeError(
            f"cannot coerce {term!r} to type bool; it must be one of {', '.join(known)}"
        )
    return known[term.lower()]
