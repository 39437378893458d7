"""Certificates, and stores of those that are trusted."""

from pathlib import Path

import pytest

from qbroker.exceptions import SecurityError
from qbroker.security.certificate import Certificate, CertStore, FSCertStore
from qbroker.security.key import PrivateKey
from qbroker.security.utils import get_digest_algorithm
from tests.support import signing

ANN = signing.pair("ann")


def test_a_certificate_tells_what_its_key_signed() -> None:
    digest = get_digest_algorithm("sha512")
    signature = PrivateKey(ANN.key).sign(b"data", digest)
    certificate = Certificate(ANN.certificate)

    certificate.verify(b"data", signature, digest)

    with pytest.raises(SecurityError, match="Bad signature"):
        certificate.verify(b"other", signature, digest)


def test_what_a_certificate_that_has_expired_signed_counts_no_more() -> None:
    old = signing.pair("old", ends=2021)
    signature = PrivateKey(old.key).sign(b"data", get_digest_algorithm())

    with pytest.raises(SecurityError, match="Expired certificate: 'old"):
        Certificate(old.certificate).verify(b"data", signature, get_digest_algorithm())


@pytest.mark.parametrize(
    "text", ["", "foo", ANN.key, signing.pair("curve", elliptic=True).certificate]
)
def test_what_is_no_certificate_of_an_rsa_key_is_refused(text: str) -> None:
    with pytest.raises(SecurityError, match="Invalid certificate"):
        Certificate(text)


def test_a_store_knows_certificates_by_issuer_and_number() -> None:
    store = CertStore()
    ann = Certificate(ANN.certificate)
    store.add_cert(ann)

    assert list(store.itercerts()) == [ann]
    assert store[f"ann {ann.get_serial_number()}"] is ann
    with pytest.raises(SecurityError, match="Duplicate certificate: 'ann"):
        store.add_cert(ann)
    with pytest.raises(SecurityError, match="Unknown certificate: 'bob 1'"):
        _ = store["bob 1"]


def test_a_store_is_a_folder_or_a_pattern_of_files(tmp_path: Path) -> None:
    (tmp_path / "ann.crt").write_text(ANN.certificate)
    (tmp_path / "bob.pem").write_text(signing.pair("bob").certificate)

    assert len(list(FSCertStore(str(tmp_path)).itercerts())) == 2
    assert len(list(FSCertStore(f"{tmp_path}/*.crt").itercerts())) == 1


def test_a_store_with_a_certificate_that_has_expired_is_refused(tmp_path: Path) -> None:
    (tmp_path / "old.crt").write_text(signing.pair("old", ends=2021).certificate)

    with pytest.raises(SecurityError, match=r"Expired certificate: 'old \d+', in '.*old.crt'"):
        FSCertStore(str(tmp_path))
