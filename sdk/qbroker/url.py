"""Where a broker is: `qbroker://host:port`, as users write it."""

from urllib.parse import urlsplit

from qbroker.exceptions import ImproperlyConfigured

DEFAULT_URL = "qbroker://127.0.0.1:7450"
DEFAULT_PORT = 7450


def parse_url(url: str) -> tuple[str, int]:
    """Host and port; the virtual host after the slash is not looked at."""
    text = url if "://" in url else f"qbroker://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as exc:
        raise ImproperlyConfigured(f"the broker's URL {url!r} is malformed: {exc}") from exc
    if parts.scheme != "qbroker":
        raise ImproperlyConfigured(
            f"the broker's URL {url!r} begins with {parts.scheme!r}; qbroker speaks to its own "
            f"broker only, as in {DEFAULT_URL!r}"
        )
    return parts.hostname or "127.0.0.1", port or DEFAULT_PORT
