"""A representation that stays short, by Celery's path."""

from reprlib import Repr

from qbroker.serialization import Value

__all__ = ["saferepr"]

_LONGEST = 2**31


def saferepr(o: Value, maxlen: int | None = None, maxlevels: int = 3, seen: Value = None) -> str:
    """Like `repr`, but no deeper than `maxlevels` and no longer than `maxlen`, where that is given."""
    del seen
    writer = Repr()
    writer.maxlevel = maxlevels
    each = maxlen or _LONGEST
    writer.maxstring = writer.maxother = writer.maxlong = each
    writer.maxlist = writer.maxtuple = writer.maxdict = writer.maxset = each
    writer.maxfrozenset = writer.maxdeque = writer.maxarray = each
    text = writer.repr(o)
    return text if maxlen is None or len(text) <= maxlen else f"{text[: max(0, maxlen - 3)]}..."
