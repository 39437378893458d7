"""Going into the background, seen from who started it."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import os, sys
from pathlib import Path
from qbroker_worker.detach import detach
detach(Path(sys.argv[1]), 0o077)
print("output of", os.getpid(), os.getsid(0) != os.getpid(), flush=True)
print("errors", file=sys.stderr, flush=True)
Path(sys.argv[2]).write_text("over")
"""


def test_the_command_returns_and_what_is_printed_later_is_in_the_file(tmp_path: Path) -> None:
    log, over = tmp_path / "log", tmp_path / "over"
    os.mkfifo(over)

    process = subprocess.Popen([sys.executable, "-c", PROGRAM, str(log), str(over)])
    code = process.wait(20)

    assert over.read_text() == "over"
    first, second = log.read_text().splitlines()
    assert code == 0
    assert first.startswith("output of ")
    assert first.endswith(" True")
    assert str(process.pid) not in first
    assert second == "errors"
    assert log.stat().st_mode & 0o077 == 0
