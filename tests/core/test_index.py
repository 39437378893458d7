"""Messages are found by label and by root while they have not ended, and by nothing afterwards."""

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


def test_an_ended_message_is_found_no_more() -> None:
    scene = Scene()
    scene.register()
    scene.publish(replace(new(), extras=Extras(labels=("a=b",), root_id="r")))

    scene.settle(scene.take_one())

    assert scene.rows(keys.INDEX) == []
