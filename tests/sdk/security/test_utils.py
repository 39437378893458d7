"""Digests by name, and errors of cryptography's as ours."""

import pytest
from cryptography.exceptions import InvalidSignature

from qbroker.exceptions import SecurityError
from qbroker.security.utils import get_digest_algorithm, reraise_errors


def test_a_digest_is_found_by_its_name() -> None:
    assert get_digest_algorithm().name == "sha256"
    assert get_digest_algorithm("sha3_512").name == "sha3-512"
    with pytest.raises(AttributeError):
        get_digest_algorithm("unknown")


def test_errors_that_are_named_become_security_errors_and_others_stay() -> None:
    with (
        pytest.raises(SecurityError, match="Bad: KeyError"),
        reraise_errors("Bad: {0!r}", (KeyError,)),
    ):
        raise KeyError("foo")
    with pytest.raises(SecurityError), reraise_errors():
        raise InvalidSignature
    with pytest.raises(KeyError), reraise_errors(errors=(ValueError,)):
        raise KeyError("bar")
