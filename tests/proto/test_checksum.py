"""The checksum at the end of a message."""

from hypothesis import given
from hypothesis.strategies import binary, data, integers

from qbroker_proto import checksum
from qbroker_proto.v1.message_pb2 import Message, Result


@given(binary(max_size=500), data())
def test_any_flipped_bit_before_the_checksum_is_found(body: bytes, chosen: object) -> None:
    raw = bytearray(checksum.sealed(Message(id="m", body=body).SerializeToString()))
    bit = chosen.draw(integers(0, (len(raw) - 10) * 8 - 1))  # type: ignore[attr-defined] # DataObject

    assert not checksum.is_damaged(bytes(raw))
    raw[bit // 8] ^= 1 << bit % 8

    assert checksum.is_damaged(bytes(raw))


def test_the_checksum_is_a_field_that_still_holds_when_parts_are_appended() -> None:
    raw = checksum.sealed(Message(id="m", body=b"x").SerializeToString())
    longer = raw + Message(retries=2).SerializeToString()

    message = Message.FromString(longer)

    assert (message.id, message.body, message.retries) == ("m", b"x", 2)
    assert not checksum.is_broken(longer, message.checksum)
    assert checksum.is_broken(longer.replace(b"x", b"y"), message.checksum)
    assert Result.FromString(checksum.sealed(b"")).checksum == 0


def test_a_message_without_a_checksum_is_not_damaged() -> None:
    raw = Message(id="m", body=b"x").SerializeToString()

    assert not checksum.is_damaged(raw)
    assert not checksum.is_damaged(b"")
    assert not checksum.is_broken(raw, 0)
