"""The serializer that signs."""

from collections.abc import Iterator

import pytest

from qbroker import serialization
from qbroker.exceptions import ContentDisallowed, SecurityError, SerializerNotInstalled
from qbroker.security.certificate import Certificate, CertStore
from qbroker.security.key import PrivateKey
from qbroker.security.serialization import DEFAULT_SEPARATOR, SecureSerializer, register_auth
from qbroker.serialization import Value
from tests.support import signing
from tests.support.signing import Pair

ANN, BOB = signing.pair("ann"), signing.pair("bob")


def signer(key: Pair, certificate: Pair, trusted: list[Pair], serializer: str = "json", allowed: tuple[str, ...] = ()) -> SecureSerializer:  # fmt: skip
    store = CertStore()
    for one in trusted:
        store.add_cert(Certificate(one.certificate))
    return SecureSerializer(
        PrivateKey(key.key), Certificate(certificate.certificate), store, "sha256", serializer, allowed
    )  # fmt: skip


@pytest.fixture
def auth() -> Iterator[None]:
    """Forgets the serializer afterwards."""
    yield
    serialization.unregister("auth")


@pytest.mark.parametrize("value", [1, "foo", b"bytes", {"foo": 1}, {"foo": DEFAULT_SEPARATOR}])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_what_one_signs_another_reads_who_trusts_him(value: Value, serializer: str) -> None:
    ann = signer(ANN, ANN, [BOB], serializer)
    bob = signer(BOB, BOB, [ANN], serializer)

    assert bob.deserialize(ann.serialize(value)) == value
    assert ann.deserialize(bob.serialize(value)) == value


def test_what_nobody_trusted_signed_is_refused() -> None:
    ann = signer(ANN, ANN, [BOB])

    with pytest.raises(SecurityError, match="Unknown certificate: 'ann"):
        ann.deserialize(ann.serialize("foo"))
    with pytest.raises(SecurityError, match="not signed"):
        ann.deserialize("bad data")
    with pytest.raises(SecurityError, match="not signed"):
        ann.deserialize(b'[["x"], {}, {}]')


def test_who_names_a_certificate_that_is_not_of_his_key_is_found_out() -> None:
    liar = signer(ANN, BOB, [ANN, BOB])

    with pytest.raises(SecurityError, match="Bad signature"):
        liar.deserialize(liar.serialize("foo"))


def test_a_change_of_any_byte_is_found_out() -> None:
    ann = signer(ANN, ANN, [ANN])
    written = ann.serialize([["hello"], {}, {}])

    for place in range(len(written)):
        changed = bytearray(written)
        changed[place] ^= 1
        with pytest.raises(SecurityError):
            ann.deserialize(bytes(changed))


def test_a_trusted_signer_has_nothing_unpickled_where_that_was_not_allowed() -> None:
    pickling = signer(ANN, ANN, [ANN], "pickle")

    with pytest.raises(ContentDisallowed):
        signer(BOB, BOB, [ANN]).deserialize(pickling.serialize("foo"))
    allowing = signer(BOB, BOB, [ANN], allowed=("pickle",))
    assert allowing.deserialize(pickling.serialize("foo")) == "foo"


def test_without_a_key_nothing_is_signed_and_without_certificates_nothing_read() -> None:
    nobody = SecureSerializer()

    with pytest.raises(SecurityError, match="no key to sign"):
        nobody.serialize("foo")
    with pytest.raises(SecurityError, match="no certificates to trust"):
        nobody.deserialize(b"foo")


@pytest.mark.usefixtures("auth")
def test_it_is_the_serializer_auth_once_it_is_registered() -> None:
    with pytest.raises(SerializerNotInstalled, match=r"after app.setup_security\(\) alone"):
        serialization.find("auth")

    register_auth(ANN.key, None, ANN.certificate, "")

    content_type, encoding, body = serialization.dumps({"a": 1}, "auth")
    assert (content_type, encoding) == ("application/x-qbroker-signed", "binary")
    assert body.endswith(b'{"a":1}')
    with pytest.raises(SecurityError):
        serialization.loads(body, content_type, accept=["auth"])
