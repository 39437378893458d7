"""Signed messages: `app.setup_security()` makes the serializer `auth`, which signs what it writes and checks what it reads.

Whoever signs has a private key and its certificate (X.509, RSA); whoever reads has a folder of the certificates he
trusts. What somebody else signed, or nobody, is not decoded. That a body is signed does not hide it: for that there is
`security_encryption_keys` (qbroker.sealing).

It needs cryptography (`pip install cryptography`).
"""

from collections.abc import Iterable
from pathlib import Path

from qbroker import _state
from qbroker.exceptions import ImproperlyConfigured
from qbroker.serialization import AUTH, Value, disable_insecure_serializers

try:
    from qbroker.security.serialization import register_auth
except ModuleNotFoundError as exc:
    raise ImproperlyConfigured(
        "the serializer 'auth' needs a package that is not installed: pip install cryptography"
    ) from exc

__all__ = ["disable_untrusted_serializers", "setup_security"]

_NOT_CHOSEN = """\
app.setup_security() makes a serializer that signs, and no task would use it. Set

    task_serializer = 'auth'
    accept_content = ['auth']

There is no point in signing messages when those that are not signed are run too.
"""

_NOT_SET = """\
app.setup_security() needs files. Set

    security_key = 'worker.key'
    security_certificate = 'worker.crt'
    security_cert_store = '/etc/qbroker/trusted'

the private key, its certificate, and the folder of the certificates that are trusted; or pass key, cert and store.
"""


def setup_security(
    allowed_serializers: Iterable[str] | None = None,
    key: str | None = None,
    key_password: bytes | str | None = None,
    cert: str | None = None,
    store: str | None = None,
    digest: str | None = None,
    serializer: str = "json",
    app: Value = None,
) -> None:
    """Make the serializer `auth` of a private key, its certificate and those that are trusted.

    What is not given is as the settings `security_key`, `security_key_password`, `security_certificate`,
    `security_cert_store` and `security_digest` say. `serializer` writes what is signed; content of
    `allowed_serializers` is read, too, when somebody trusted signed it, and by `serialization.loads` when nobody did.
    There is one `auth` in a process, for all its apps. Raises ImproperlyConfigured and SecurityError.
    """
    if app is None:
        app = _state.get_current_app()
    allowed = tuple(allowed_serializers or ())
    disable_insecure_serializers(allowed)
    conf = app.conf
    if conf.task_serializer != AUTH or list(conf.accept_content) != [AUTH]:
        raise ImproperlyConfigured(_NOT_CHOSEN)
    if serializer == AUTH:
        raise ImproperlyConfigured("what 'auth' signs is written by another serializer than 'auth'")
    key = key or conf.security_key
    cert = cert or conf.security_certificate
    store = store or conf.security_cert_store
    if not (key and cert and store):
        raise ImproperlyConfigured(_NOT_SET)
    register_auth(
        _text_of("private key", key),
        key_password or conf.security_key_password,
        _text_of("certificate", cert),
        store,
        digest or conf.security_digest,
        serializer,
        allowed,
    )


def _text_of(what: str, path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError as exc:
        raise ImproperlyConfigured(
            f"the file of the {what}, {path!r}, cannot be read: {exc}"
        ) from exc


def disable_untrusted_serializers(whitelist: Iterable[str] | None = None) -> None:
    """Have `serialization.loads` read only these where it is not told what to accept."""
    disable_insecure_serializers(whitelist)
