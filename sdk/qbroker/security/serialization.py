"""The serializer `auth`: what another one wrote, with a signature of it.

Its bytes are the id of the signer's certificate, the signature, and what is signed: a content type, an encoding and
the content. The signature is checked before any of that is decoded.
"""

import base64
import binascii
from collections.abc import Iterable

from qbroker import serialization
from qbroker.exceptions import SecurityError
from qbroker.security.certificate import Certificate, CertStore, FSCertStore
from qbroker.security.key import PrivateKey
from qbroker.security.utils import get_digest_algorithm
from qbroker.serialization import AUTH, JSON, Value

__all__ = ["SecureSerializer", "register_auth"]

CONTENT_TYPE = "application/x-qbroker-signed"

DEFAULT_SEPARATOR = b"\x00\x01"
"""Parts what comes before the content, which is base64 or the name of a type and so has no NUL."""


class SecureSerializer:
    """Signs with the key, of which `cert` is the certificate, and reads what one of `cert_store` signed.

    What is signed is written by `serializer`; what is read may be that, JSON, or written by one that is `allowed`.
    """

    def __init__(
        self,
        key: PrivateKey | None = None,
        cert: Certificate | None = None,
        cert_store: CertStore | None = None,
        digest: str = "sha256",
        serializer: str = "json",
        allowed: Iterable[str] = (),
    ) -> None:
        self._key = key
        self._cert = cert
        self._cert_store = cert_store
        self._digest = get_digest_algorithm(digest)
        self._serializer = serializer
        self._accepted = serialization.content_types((serializer, *allowed)) | {JSON}

    def serialize(self, data: Value) -> bytes:
        """The value as signed bytes."""
        if self._key is None or self._cert is None:
            raise SecurityError("Unable to serialize: there is no key to sign with")
        content_type, encoding, body = serialization.encode(data, self._serializer)
        signed = DEFAULT_SEPARATOR.join([content_type.encode(), encoding.encode(), body])
        signature = self._key.sign(signed, self._digest)
        signer = base64.b64encode(self._cert.get_id().encode())
        return DEFAULT_SEPARATOR.join([signer, base64.b64encode(signature), signed])

    def deserialize(self, data: bytes | str) -> Value:
        """The value that somebody trusted signed; else SecurityError."""
        if self._cert_store is None:
            raise SecurityError("Unable to deserialize: there are no certificates to trust")
        raw = data.encode() if isinstance(data, str) else data
        try:
            signer, signature, signed = raw.split(DEFAULT_SEPARATOR, maxsplit=2)
            certificate = self._cert_store[base64.b64decode(signer).decode()]
            proof = base64.b64decode(signature)
        except (ValueError, binascii.Error) as exc:
            raise SecurityError(f"Unable to deserialize: it is not signed ({exc})") from exc
        certificate.verify(signed, proof, self._digest)
        content_type, _, body = signed.split(DEFAULT_SEPARATOR, maxsplit=2)
        return serialization.decode(body, content_type.decode(), self._accepted)


def register_auth(
    key: str | bytes | None = None,
    key_password: str | bytes | None = None,
    cert: str | bytes | None = None,
    store: str | None = None,
    digest: str = "sha256",
    serializer: str = "json",
    allowed: Iterable[str] = (),
) -> None:
    """Register `auth`, of a key and a certificate as PEM and the place of those that are trusted."""
    made = SecureSerializer(
        PrivateKey(key, key_password) if key else None,
        Certificate(cert) if cert else None,
        FSCertStore(store) if store else None,
        digest,
        serializer,
        allowed,
    )
    serialization.register(AUTH, made.serialize, made.deserialize, CONTENT_TYPE, "binary")
