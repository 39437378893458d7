"""Bodies that only those can read who have the key: AES-GCM, keys by id.

A sealed body is a nonce of 12 bytes and what AES-GCM made of the body, and the carrier names the key by its id. The
first key seals, all of them open: so a new key is put first, and an old one goes when nothing is left that it
sealed. With the body goes, unencrypted but sealed with it, what it is (a call or a result), of which task, and how it
is written: so the body of one task cannot be handed to another.

Who has keys reads nothing that is not sealed, unless told so: else whoever can write to the broker would just leave
the seal off.
"""

import base64
import binascii
import json
import os
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

from qbroker.exceptions import ImproperlyConfigured, SecurityError

__all__ = ["Kind", "Seal", "keys_of"]

Kind = Literal["call", "result"]
"""What a body is."""

_NONCE_BYTES = 12
_KEY_BYTES = (16, 24, 32)
_ID_BYTES_MAX = 255


class Carrier(Protocol):
    """A Message or a Result."""

    task: str
    content_type: str
    content_encoding: str
    compression: str
    encryption_key_id: str
    body: bytes


def keys_of(value: object) -> dict[str, bytes]:
    """Keys by id, of a mapping to bytes or base64, or of text: "new=…base64…,old=…base64…".

    Its errors show no key.
    """
    is_text = isinstance(value, str)
    if isinstance(value, str):
        value = dict(part.strip().partition("=")[::2] for part in value.split(",") if part.strip())
    if not isinstance(value, Mapping):
        raise ImproperlyConfigured(
            "the setting security_encryption_keys must be a mapping of ids to keys, "
            f"not {type(value).__name__}"
        )
    found: dict[str, bytes] = {}
    for number, (key_id, key) in enumerate(value.items(), start=1):
        # In text without an id, what stands for the id is the key.
        shown = f"number {number}" if is_text else repr(key_id)
        found[_checked_id(key_id, shown)] = _key(key, shown)
    return found


def _checked_id(key_id: object, shown: str) -> str:
    if not isinstance(key_id, str) or not 1 <= len(key_id.encode()) <= _ID_BYTES_MAX:
        raise ImproperlyConfigured(
            f"the id of the key {shown} in security_encryption_keys must be text of 1 to {_ID_BYTES_MAX} bytes"
        )
    return key_id


def _key(key: object, shown: str) -> bytes:
    if isinstance(key, str):
        try:
            key = base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            key = None
    if not isinstance(key, bytes) or len(key) not in _KEY_BYTES:
        raise ImproperlyConfigured(
            f"the key {shown} in security_encryption_keys must be 16, 24 or 32 bytes, or these in base64, "
            "with an id, as in 'id=key'. `openssl rand -base64 32` makes one"
        )
    return key


class Seal:
    """The keys of an app."""

    def __init__(
        self,
        keys: Mapping[str, bytes],
        *,
        accepts_plain: bool = False,
        draw: Callable[[int], bytes] = os.urandom,
    ) -> None:
        try:
            # Needed by who encrypts alone.
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415
        except ModuleNotFoundError as exc:
            raise ImproperlyConfigured(
                "the setting security_encryption_keys needs a package that is not installed: "
                "pip install cryptography"
            ) from exc
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._first = next(iter(self._ciphers))
        self._accepts_plain = accepts_plain
        self._draw = draw

    def close(self, carrier: Carrier, kind: Kind, task: str | None = None) -> None:
        """Seal the carrier's body with the first key; `task` is its task where the carrier does not say so yet."""
        carrier.encryption_key_id = self._first
        nonce = self._draw(_NONCE_BYTES)
        beside = _beside(carrier, kind, carrier.task if task is None else task)
        carrier.body = nonce + self._ciphers[self._first].encrypt(nonce, carrier.body, beside)

    def open(self, carrier: Carrier, kind: Kind) -> bytes:
        """The body as it was; SecurityError when it is not sealed, by no key of ours, or not as it was."""
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - as above

        key_id = carrier.encryption_key_id
        if not key_id:
            if self._accepts_plain:
                return carrier.body
            raise SecurityError(
                f"a {kind} of task {carrier.task!r} is not encrypted, and only what is may be read here "
                "(the setting security_accept_unencrypted)"
            )
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SecurityError(
                f"a {kind} of task {carrier.task!r} is encrypted by the key {key_id!r}, and there are only "
                f"{sorted(self._ciphers)} here (the setting security_encryption_keys)"
            )
        body = carrier.body
        try:
            return cipher.decrypt(
                body[:_NONCE_BYTES], body[_NONCE_BYTES:], _beside(carrier, kind, carrier.task)
            )
        except (InvalidTag, ValueError) as exc:
            raise SecurityError(
                f"a {kind} of task {carrier.task!r}, encrypted by the key {key_id!r}, was changed on its way, or "
                "another key has that id here"
            ) from exc


def _beside(carrier: Carrier, kind: Kind, task: str) -> bytes:
    """What is sealed with the body without being hidden."""
    return json.dumps(
        [
            kind,
            task,
            carrier.content_type,
            carrier.content_encoding,
            carrier.compression,
            carrier.encryption_key_id,
        ]
    ).encode()
