"""Where a broker is: `qbroker://host:port`, as users write it."""

from urllib.parse import urlsplit

from qbroker.exceptions import ImproperlyConfigured
from qbroker.masking import masked

DEFAULT_URL = "qbroker://127.0.0.1:7450"
DEFAULT_PORT = 7450


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
