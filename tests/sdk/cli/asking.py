"""`qctl` in this process, against a real broker: no tests."""

import json
from typing import Any

from click.testing import CliRunner, Result

from qbroker.cli.qctl import qctl
from tests.sdk.real_broker import RealBroker


class Shell:
    """Runs `qctl -b URL …`, and knows how it ended."""

    def __init__(self, broker: RealBroker) -> None:
        self._url = broker.url

    def __call__(self, *arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(qctl, ["-b", self._url, *arguments], input=stdin)

    def said(self, *arguments: str, stdin: str | None = None) -> str:
        """What it printed, having done it."""
        result = self(*arguments, stdin=stdin)
        assert result.exit_code == 0, result.output
        return result.output

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 - whatever the verb answers
        return json.loads(self.said(*arguments, "--json"))
