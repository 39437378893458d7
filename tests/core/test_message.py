"""A message's record, by id."""

import pytest

from qbroker_server.core import keys, message
from qbroker_server.core.effects import Effects, Policy
from qbroker_server.core.errors import CorruptRecord
from tests.support.scene import Scene, new


def test_an_id_nobody_published_has_no_record() -> None:
    scene = Scene()

    assert scene.find("unknown") is None
    assert scene.find("") is None
    assert scene.find("x" * 10_000) is None


def test_a_damaged_record_is_told_to_who_looks() -> None:
    scene = Scene()
    scene.publish(new())
    scene.damage(keys.MESSAGE + b"m1")

    with pytest.raises(CorruptRecord, match="the checksum differs"):
        scene.find()


def test_a_damaged_record_is_put_aside_byte_for_byte() -> None:
    scene = Scene()
    scene.publish(new())
    scene.damage(keys.MESSAGE + b"m1")
    ((_, raw),) = scene.rows(keys.MESSAGE)
    effects = Effects(Policy(), 0)
    txn = scene.engine.begin(bytes_max=0)

    found = message.find(txn, "m1", effects)
    txn.commit()

    assert found is None
    assert scene.rows(keys.DAMAGED) == [(keys.DAMAGED + b"m1", raw)]
    assert scene.rows(keys.MESSAGE) == []
    assert len(effects.damaged) == 1


def test_it_is_told_whether_a_message_has_ended() -> None:
    scene = Scene()
    scene.publish(new())

    with scene.engine.read() as txn:
        assert not message.has_ended(txn, "m1")
        assert not message.has_ended(txn, "unknown")
    scene.damage(keys.MESSAGE + b"m1")
    with scene.engine.read() as txn:
        assert message.has_ended(txn, "m1")
