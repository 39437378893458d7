"""Messages are found by label while they have not ended, and by where they come from until they are forgotten."""

from dataclasses import replace

from qbroker_server.core import index, keys
from qbroker_server.core.records import Extras
from tests.support.scene import Scene, new


def test_labels_and_roots_find_their_messages_a_page_at_a_time() -> None:
    scene = Scene()
    scene.publish(
        *[replace(new(f"m{n}"), extras=Extras(labels=("a=b",), root_id="r")) for n in range(3)]
    )

    def find(kind: bytes, value: str, after_id: str = "") -> list[str]:
        return scene.broker.read(lambda txn: index.find(txn, kind, value, after_id))

    assert find(index.LABEL, "a=b") == ["m0", "m1", "m2"]
    assert find(index.LABEL, "a=b", "m1") == ["m2"]
    assert find(index.ROOT, "r") == ["m0", "m1", "m2"]
    assert find(index.LABEL, "a=") == []


def test_an_ended_message_is_found_by_its_origin_until_it_is_forgotten() -> None:
    scene = Scene()
    scene.register()
    scene.publish(replace(new(), extras=Extras(labels=("a=b",), root_id="r")))

    scene.settle(scene.take_one())

    assert scene.broker.read(lambda txn: index.find(txn, index.LABEL, "a=b")) == []
    assert scene.broker.read(lambda txn: index.find(txn, index.ROOT, "r")) == ["m1"]
    scene.pass_time(scene.policy.result_ttl_ms)
    assert scene.rows(keys.INDEX) == []
