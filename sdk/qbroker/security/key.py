"""Private keys, which sign."""

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from qbroker.security.utils import padding_of, reraise_errors

__all__ = ["PrivateKey"]


class PrivateKey:
    """An RSA key, of PEM; SecurityError when it is none, or the password is not its own."""

    def __init__(self, key: str | bytes, password: str | bytes | None = None) -> None:
        raw = key.encode() if isinstance(key, str) else key
        secret = password.encode() if isinstance(password, str) else password
        # A TypeError tells of a password that is missing, or of one too many.
        with reraise_errors("Invalid private key: {0!r}", (ValueError, TypeError)):
            found = load_pem_private_key(raw, secret)
            if not isinstance(found, rsa.RSAPrivateKey):
                raise ValueError("Non-RSA keys are not supported.")  # noqa: TRY004 - Celery's words, made a SecurityError here
            self._key = found

    def sign(self, data: bytes, digest: hashes.HashAlgorithm) -> bytes:
        """The signature of these bytes."""
        with reraise_errors("Unable to sign data: {0!r}"):
            return self._key.sign(data, padding_of(digest), digest)
