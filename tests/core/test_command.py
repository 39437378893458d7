"""What the broker can be asked to do."""

import dataclasses

import pytest

from qbroker_server.core import lease, publish, queue, results, schedule

COMMANDS = [
    publish.Publish(()),
    lease.Register("s", "w", (), frozenset(), 0, ()),
    lease.Report("s"),
    lease.ReturnLeases("s", ""),
    queue.Purge("q"),
    results.Forget(()),
    schedule.Sweep(),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: type(command).__name__)
def test_a_command_is_a_frozen_value_that_knows_its_cost(command: object) -> None:
    items, size = getattr(command, "cost", (None, None))

    assert isinstance(items, int)
    assert isinstance(size, int)
    assert dataclasses.is_dataclass(command)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(command, dataclasses.fields(command)[0].name, None)
