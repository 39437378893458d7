"""Names, and text that others wrote: which characters no name may have, and how they are shown elsewhere.

A name reaches logs, terminals and pages. So broker and SDK refuse a name that could forge a line of a log, drive
a terminal or turn text around, and everything that shows other text escapes those characters.
"""

import re

_UNSAFE = (
    "\x00-\x1f"  # C0
    "\x7f-\x9f"  # DEL and C1
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, overrides and isolates of the bidi algorithm
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff"  # surrogates, which UTF-8 cannot encode
)
_UNSAFE_CHARACTER = re.compile(f"[{_UNSAFE}]")
_UNSAFE_BUT_LAYOUT = re.compile(rf"(?![\t\n])[{_UNSAFE}]")

_SURROGATE = re.compile("[\ud800-\udfff]")

_SHOWN_CHARS = 60


def unsafe_character(text: str) -> str:
    """The first character that no name may have; "" when there is none."""
    # By far the fastest test, and true of nearly every name.
    if text.isprintable():
        return ""
    found = _UNSAFE_CHARACTER.search(text)
    return found[0] if found is not None else ""


def character_fault(what: str, name: str) -> str:
    """Which character `name` may not have, as a sentence that begins with `what`; "" when there is none."""
    character = unsafe_character(name)
    return _contains(what, name, character) if character else ""


def _contains(what: str, text: str, character: str) -> str:
    kind = "a control character"
    if "\ud800" <= character <= "\udfff":
        kind = "a lone surrogate, which UTF-8 cannot encode"
    return f"{what} {text[:_SHOWN_CHARS]!a} contains U+{ord(character):04X}, {kind}; leave it out"


def surrogate_fault(what: str, text: str) -> str:
    """Like `character_fault`, for text in which only what UTF-8 cannot encode is refused."""
    if text.isprintable():
        return ""
    found = _SURROGATE.search(text)
    if found is None:
        return ""
    return _contains(what, text, found[0])


def fault(what: str, name: str, bytes_max: int, *, is_optional: bool = False) -> str:
    """Why `name` cannot be a name, as a sentence that begins with `what`; "" when it can.

    It must have 1 to `bytes_max` bytes of UTF-8, or none when `is_optional`.
    """
    # No character has more than four bytes.
    if 0 < len(name) <= bytes_max // 4 and name.isprintable():
        return ""
    found = character_fault(what, name)
    if found:
        return found
    size = len(name.encode())
    least = 0 if is_optional else 1
    if not least <= size <= bytes_max:
        return (
            f"{what} {name[:_SHOWN_CHARS]!r} has {size} bytes; it must have {least} to {bytes_max}"
        )
    return ""


def escaped(text: str) -> str:
    """The text in one line, with an escape for each character that no name may have."""
    if text.isprintable():
        return text
    return _UNSAFE_CHARACTER.sub(_escape, text)


def escaped_lines(text: str) -> str:
    """Like `escaped`, but tabs and newlines stay: for tracebacks and other text of several lines."""
    if text.isprintable():
        return text
    return _UNSAFE_BUT_LAYOUT.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
