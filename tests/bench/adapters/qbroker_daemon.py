"""The broker for a copy of the peers' harness: `brokers.py` there gets two more lines, see README.md."""

import shutil
from pathlib import Path

from brokers import HERE, RUN, Broker, wait_port


class Daemon(Broker):
    """`qbroker serve` from the harness's own virtual environment, syncing each commit."""

    def __init__(self, key: str, port: int) -> None:
        self.key = key
        self.port = port
        self.dir = str(Path(RUN) / key)
        self.url = f"qbroker://127.0.0.1:{port}"

    def start(self) -> None:
        """Start on an empty folder."""
        shutil.rmtree(self.dir, ignore_errors=True)
        program = str(Path(HERE) / "venv" / "bin" / "qbroker")
        listen = f"127.0.0.1:{self.port}"
        argv = [program, "serve", "--data-dir", self.dir, "--listen", listen]
        wait_port(self.port, 10, self.spawn(argv))
