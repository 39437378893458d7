"""What the tests of commands share."""

import pytest

from tests.sdk.cli.asking import Shell
from tests.sdk.real_broker import RealBroker


@pytest.fixture
def qctl(real_broker: RealBroker) -> Shell:
    """`qctl` at the real broker."""
    return Shell(real_broker)
