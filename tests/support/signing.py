"""Keys and certificates that are made for a test."""

import datetime as dt
from dataclasses import dataclass
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)

_BEGAN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Pair:
    """A private key and its certificate, both PEM."""

    key: str
    certificate: str


@cache
def pair(
    name: str, *, password: str = "", ends: int = 2100, elliptic: bool = False, serial: int = 0
) -> Pair:
    """Those of that name, the same ones throughout the tests."""
    key = ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)  # fmt: skip
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(named)
        .issuer_name(named)
        .public_key(key.public_key())
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(_BEGAN)
        .not_valid_after(dt.datetime(ends, 1, 1, tzinfo=dt.UTC))
        .sign(key, hashes.SHA256())
    )
    how: KeySerializationEncryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()  # fmt: skip
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, how)
    return Pair(pem.decode(), made.public_bytes(Encoding.PEM).decode())
