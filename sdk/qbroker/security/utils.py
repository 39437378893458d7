"""What keys and certificates share: digests by name, and errors of cryptography's as ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding

from qbroker.exceptions import SecurityError

__all__ = ["get_digest_algorithm", "reraise_errors"]


def get_digest_algorithm(digest: str = "sha256") -> hashes.HashAlgorithm:
    """The digest of that name; AttributeError when there is none, as in Celery."""
    return cast("hashes.HashAlgorithm", getattr(hashes, digest.upper())())


def padding_of(digest: hashes.HashAlgorithm) -> padding.PSS:
    """How RSA signs a digest."""
    return padding.PSS(mgf=padding.MGF1(digest), salt_length=padding.PSS.MAX_LENGTH)


@contextmanager
def reraise_errors(
    msg: str = "{0!r}", errors: tuple[type[BaseException], ...] | None = None
) -> Iterator[None]:
    """Raise a SecurityError in place of these errors; without any, of cryptography's."""
    caught = errors or (InvalidSignature, UnsupportedAlgorithm)
    try:
        yield
    except caught as exc:
        raise SecurityError(msg.format(exc)) from exc
