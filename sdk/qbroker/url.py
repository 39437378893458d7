"""Where a broker is: `qbroker://host:port`, as users write it; and URLs as they may be shown."""

import re
from typing import Final
from urllib.parse import urlsplit

from qbroker.exceptions import ImproperlyConfigured

DEFAULT_URL = "qbroker://127.0.0.1:7450"
DEFAULT_PORT = 7450

MASK: Final = "**"
"""Shown in place of a password, as in Celery."""

_PORT = r"(?!\d{1,5}(?:[/?#:;,\s'\")\]]|$))"
_PASSWORD = re.compile(
    # Behind the scheme, even with too many slashes; or at the start of a value that has no scheme, or a broken one.
    r"((?:://+(?!\[[0-9a-f:.%]*\])[^/@:\s]*|^(?!.*://)(?!\[[0-9a-f:.%]*\])[^@:\s]*):)"
    + _PORT
    # Up to the last @ before another URL: @, / and # in a password are often not written as %40, %2F and %23.
    + r"(?:(?:(?![;,|\s'\"]+[\w+.-]+://)[^\n])*@|(?!//)[^/\s;,'\"@]+(?=[/?#;,'\"]|$))",
    re.IGNORECASE,
)
_QUERY_SECRET = re.compile(
    r"([?&;][^=&?;\s]*(?:token|secret|passw|pwd|signature|(?<![a-z])sig(?![a-z])|(?:api|access).?key"
    r"|(?<![a-z_])key(?![a-z])|auth(?!or|source|mech)|credential|jwt|session)[^=&?;\s]*=)[^&\s'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """Hide passwords of URLs, and secrets in their queries: `amqp://guest:**@rabbit//`.

    The text may be a URL, a list of them, or hold some. A malformed URL loses rather more than its password.
    """
    return _QUERY_SECRET.sub(rf"\1{MASK}", _PASSWORD.sub(_hide, text))


def _hide(found: re.Match[str]) -> str:
    return f"{found[1]}{MASK}" + ("@" if found[0].endswith("@") else "")


def parse_url(url: str) -> tuple[str, int]:
    """Return host and port. User, password and path mean nothing to a broker and are not looked at."""
    text = url if "://" in url else f"qbroker://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # The cause would show a piece of a password that holds a slash.
        raise ImproperlyConfigured(
            f"the broker's URL {masked(url)!r} is malformed: host and port are written as in {DEFAULT_URL!r}"
        ) from None
    if parts.scheme != "qbroker":
        raise ImproperlyConfigured(
            f"the broker's URL {masked(url)!r} begins with {parts.scheme!r}; qbroker connects only to its own "
            f"broker, as in {DEFAULT_URL!r}"
        )
    return parts.hostname or "127.0.0.1", port or DEFAULT_PORT
