"""The memory engine beside the conformance suite."""

from qbroker_server.engines.memory import MemoryEngine


def test_nothing_survives_a_close() -> None:
    engine = MemoryEngine()
    txn = engine.begin(bytes_max=1)
    txn.put(b"a", b"1")
    txn.commit()

    engine.close()

    assert engine.stored_bytes() == 0
