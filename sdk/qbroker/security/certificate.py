"""Certificates, which tell whose signature it is, and stores of those that are trusted."""

import datetime as dt
import glob
from collections.abc import Iterator
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509 import load_pem_x509_certificate

from qbroker import clock
from qbroker.exceptions import SecurityError
from qbroker.security.utils import padding_of, reraise_errors

__all__ = ["CertStore", "Certificate", "FSCertStore"]


class Certificate:
    """An X.509 certificate of an RSA key, of PEM; SecurityError when it is none."""

    def __init__(self, cert: str | bytes) -> None:
        raw = cert.encode() if isinstance(cert, str) else cert
        with reraise_errors("Invalid certificate: {0!r}", (ValueError, TypeError)):
            self._cert = load_pem_x509_certificate(raw)
            found = self._cert.public_key()
            if not isinstance(found, rsa.RSAPublicKey):
                raise ValueError("Non-RSA certificates are not supported.")  # noqa: TRY004 - Celery's words, made a SecurityError here
            self._key = found

    def has_expired(self) -> bool:
        """Whether its time is over."""
        now = dt.datetime.fromtimestamp(clock.wall_ms() / 1000, dt.UTC)
        return now >= self._cert.not_valid_after_utc

    def get_pubkey(self) -> rsa.RSAPublicKey:
        """The key that checks what the private one signed."""
        return self._key

    def get_serial_number(self) -> int:
        """The number that its issuer gave it."""
        return self._cert.serial_number

    def get_issuer(self) -> str:
        """Who made it, as text."""
        return " ".join(str(part.value) for part in self._cert.issuer)

    def get_id(self) -> str:
        """What tells it from all others: its issuer and the number."""
        return f"{self.get_issuer()} {self.get_serial_number()}"

    def verify(self, data: bytes, signature: bytes, digest: hashes.HashAlgorithm) -> None:
        """Raise SecurityError unless these bytes were signed by its key, and its time is not over."""
        if self.has_expired():
            raise SecurityError(f"Expired certificate: {self.get_id()!r}")
        with reraise_errors("Bad signature: {0!r}"):
            self._key.verify(signature, data, padding_of(digest), digest)


class CertStore:
    """The certificates that are trusted, by their ids."""

    def __init__(self) -> None:
        self._certs: dict[str, Certificate] = {}

    def itercerts(self) -> Iterator[Certificate]:
        """Each of them."""
        yield from self._certs.values()

    def __getitem__(self, id: str | bytes) -> Certificate:  # noqa: A002 - Celery's name
        try:
            return self._certs[id.decode() if isinstance(id, bytes) else id]
        except KeyError:
            raise SecurityError(f"Unknown certificate: {id!r}") from None

    def add_cert(self, cert: Certificate) -> None:
        """Trust this one too."""
        cert_id = cert.get_id()
        if cert_id in self._certs:
            raise SecurityError(f"Duplicate certificate: {cert_id!r}")
        self._certs[cert_id] = cert


class FSCertStore(CertStore):
    """The certificates in a folder, or of the files that fit a pattern; SecurityError when one has expired."""

    def __init__(self, path: str) -> None:
        super().__init__()
        pattern = f"{path}/*" if Path(path).is_dir() else path
        for found in sorted(glob.glob(pattern)):  # noqa: PTH207 - the pattern may be absolute
            cert = Certificate(Path(found).read_bytes())
            if cert.has_expired():
                raise SecurityError(f"Expired certificate: {cert.get_id()!r}, in {found!r}")
            self.add_cert(cert)
