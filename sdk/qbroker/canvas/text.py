"""Signatures as text, in Celery's form: `proj.tasks.add(2, 2) | mul(8)`."""

from collections.abc import Mapping, Sequence

from qbroker.serialization import Value

__all__ = ["call_text", "cut", "without_repeated_module"]


def call_text(name: str, args: Sequence[Value], kwargs: Mapping[str, Value]) -> str:
    """A call as Python would write it."""
    written = [repr(arg) for arg in args]
    written += [f"{name}={value!r}" for name, value in kwargs.items()]
    return f"{name}({', '.join(written)})"


def cut(text: str, chars_max: int) -> str:
    """The text, or the words at its beginning."""
    if len(text) < chars_max:
        return text
    return f"{text[:chars_max].rsplit(' ', 1)[0]}..."


def without_repeated_module(task: str, text: str) -> str:
    """Name the module of `task` only where it comes first, and only where it starts a name."""
    prefix = f"{task.rpartition('.')[0]}."
    head, found, rest = text.partition(prefix)
    if prefix == "." or not found:
        return text
    before, *parts = rest.split(prefix)
    kept = [head, found, before]
    for part in parts:
        if before[-1:].isalnum() or before[-1:] in ("_", ".", "-"):
            kept.append(prefix)
        kept.append(part)
        before = part or prefix
    return "".join(kept)
