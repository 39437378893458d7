"""Private keys, which sign."""

import pytest

from qbroker.exceptions import SecurityError
from qbroker.security.key import PrivateKey
from qbroker.security.utils import get_digest_algorithm
from tests.support import signing

WORD = "a word"


def test_a_key_with_its_password_signs_and_one_with_another_is_none() -> None:
    locked = signing.pair("locked", password=WORD)

    assert len(PrivateKey(locked.key, WORD).sign(b"data", get_digest_algorithm())) == 256
    for password in ("wrong", None):
        with pytest.raises(SecurityError, match="Invalid private key"):
            PrivateKey(locked.key, password)


@pytest.mark.parametrize("text", ["", "foo", signing.pair("ann").certificate])
def test_what_is_no_private_key_is_refused(text: str) -> None:
    with pytest.raises(SecurityError):
        PrivateKey(text)


def test_keys_other_than_rsa_are_refused() -> None:
    with pytest.raises(SecurityError, match="Non-RSA"):
        PrivateKey(signing.pair("curve", elliptic=True).key)
