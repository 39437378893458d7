"""Secrets are hidden wherever a URL or a setting is shown: in errors, logs, reports, banners and answers of inspect."""

import re
from collections.abc import Mapping
from typing import Final

from qbroker.serialization import Value

__all__ = ["masked", "masked_setting"]

_MASK: Final = "**"
"""Shown in place of a password, as in Celery."""

_SETTING_MASK: Final = "********"

_SECRET_NAME = re.compile(
    r"API|TOKEN|(?<!ROUTING_)KEY|SECRET|PASS|SIGNATURE|DATABASE|AUTHORIZATION|COOKIE|CREDENTIAL",
    re.IGNORECASE,
)
"""Names of settings whose values are hidden."""

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

    The text may be a URL, a list of them, or a sentence that holds some. Of a malformed URL more than the password may go.
    """
    return _QUERY_SECRET.sub(rf"\1{_MASK}", _PASSWORD.sub(_hide, text))


def _hide(found: re.Match[str]) -> str:
    return f"{found[1]}{_MASK}" + ("@" if found[0].endswith("@") else "")


def masked_setting(name: object, value: Value) -> Value:
    """Hide the secrets of a setting: all of its value if the name tells so, else passwords of URLs, at any depth."""
    is_secret = isinstance(name, str) and bool(_SECRET_NAME.search(name))
    if isinstance(value, Mapping):
        # The names of secrets may be shown.
        return {
            key: _SETTING_MASK if is_secret else masked_setting(key, inner)
            for key, inner in value.items()
        }
    if is_secret and value is not None:
        return _SETTING_MASK
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, bytes):
        text = value.decode("latin-1")
        return value if masked(text) == text else masked(text).encode("latin-1")
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(masked_setting(None, inner) for inner in value)
    return value
