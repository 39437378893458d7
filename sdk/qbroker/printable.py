"""Text of any object, whatever its own methods do.

A `__str__` or `__repr__` of a user may raise, return no string, recurse without end, or make megabytes. Code
that reports how a task ended asks here instead of calling them, because a report must not fail itself.
All texts returned here can be encoded as UTF-8: lone surrogates become backslash escapes.
"""

from collections.abc import Callable

CHARS_MAX = 256 * 1024
"""The longest text of one object, unless the caller says otherwise."""


_MARK_CHARS = 64


def clean(text: str) -> str:
    """The text with lone surrogates as backslash escapes, as a plain `str`."""
    if type(text) is str and text.isascii():
        return text
    # A subclass of `str` may override anything, so the base class is asked.
    return str.encode(text, "utf-8", "backslashreplace").decode()


def cut(text: str, chars_max: int = CHARS_MAX) -> str:
    """The text, or its beginning and its end with a mark between them that says how much is missing."""
    if len(text) <= chars_max:
        return text
    half = max(0, chars_max - _MARK_CHARS) // 2
    start, end = half, len(text) - half
    # At the end of a line, if there is one near.
    start = text.rfind("\n", start - half // 4, start) + 1 or start
    end = text.find("\n", end, end + half // 4) + 1 or end
    mark = f"[... {end - start} characters left out ...]\n"
    if start and text[start - 1] != "\n":
        mark = f"\n{mark}"
    return f"{text[:start]}{mark}{text[end:]}"


def _asked(ask: Callable[[object], str], value: object, chars_max: int) -> str:
    try:
        text = ask(value)
        return clean(cut(text, chars_max))
    except BaseException:  # noqa: BLE001 - also SystemExit: a report must not end what it reports on
        return f"<unprintable {clean(type(value).__name__)} object>"


def text_of(value: object, chars_max: int = CHARS_MAX) -> str:
    """`str(value)`, cut; `<unprintable ValueError object>` where that raises."""
    return _asked(str, value, chars_max)


def repr_of(value: object, chars_max: int = CHARS_MAX) -> str:
    """`repr(value)`, cut; `<unprintable ValueError object>` where that raises."""
    return _asked(repr, value, chars_max)
