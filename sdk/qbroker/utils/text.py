"""Text for people, by Celery's names."""

import textwrap
from collections.abc import Iterable

__all__ = ["abbr", "abbrtask", "dedent", "indent", "join", "pluralize", "str_to_list", "truncate"]


def str_to_list(s: str | Iterable[str] | None) -> list[str]:
    """The parts between commas; a list as it is."""
    if s is None:
        return []
    return [part.strip() for part in s.split(",")] if isinstance(s, str) else list(s)


def dedent(s: str, sep: str = "\n") -> str:
    """Lines without the blanks that all of them begin with."""
    return sep.join(textwrap.dedent(s).splitlines())


def indent(t: str, indent: int = 0, sep: str = "\n") -> str:
    """Lines with so many blanks before each."""
    return sep.join(f"{' ' * indent}{line}" for line in t.split(sep))


def join(seq: Iterable[object], sep: str = "\n") -> str:
    """Those that say something, joined."""
    return sep.join(str(part) for part in seq if part)


def truncate(s: str, maxlen: int = 128, suffix: str = "...") -> str:
    """Text of at most `maxlen` characters, cut after a word where it can be."""
    if not maxlen or len(s) < maxlen:
        return s
    return s[: maxlen - len(suffix)].rsplit(" ", 1)[0] + suffix


def abbr(s: str | None, max: int, ellipsis: str | bool = "...") -> str:  # noqa: A002, FBT001 - Celery's signature
    """Text of at most `max` characters; of none, ???."""
    if s is None:
        return "???"
    if len(s) <= max:
        return s
    return s[: max - len(ellipsis)] + ellipsis if isinstance(ellipsis, str) else s[:max]


def abbrtask(s: str | None, max: int) -> str:  # noqa: A002 - Celery's name
    """The name of a task: its module is what is cut."""
    if s is None:
        return "???"
    if len(s) <= max:
        return s
    module, _, cls = s.rpartition(".")
    return f"{abbr(module, max - len(cls), ellipsis=False)}[.]{cls}"


def pluralize(n: float, text: str, suffix: str = "s") -> str:
    """The word for so many."""
    return text if n == 1 else text + suffix
