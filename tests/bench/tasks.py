"""What the benchmark's worker runs: nothing."""

import os
import time

from qbroker import App, Task

app = App("bench", backend="qbroker://", accept_content=["json", "msgpack", "pickle"])


@app.task
def noop(text: str) -> None:
    """Do nothing."""


@app.task(send_events=False)
def untold(text: str) -> None:
    """Do nothing, of which nobody is told."""


@app.task
def measure(text: str) -> int:
    """Say how long the text is."""
    return len(text)


@app.task
def late_by(due: float) -> float:
    """How many seconds after `due` (Unix time) it runs."""
    return time.time() - due


@app.task(bind=True, ignore_result=True)
def note_lateness(self: Task[[], None]) -> None:
    """Write down how many milliseconds after its tick it runs. A tick's message has the tick in its id."""
    assert self.request.id is not None
    tick_ms = int(self.request.id.replace("-", "")[:12], 16)
    line = f"{time.time() * 1e3 - tick_ms:.3f}\n"
    # A short write at the end is whole, whoever else writes.
    fd = os.open(os.environ["BENCH_NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, line.encode())
    os.close(fd)


@app.task
def give(size: int) -> str:
    """Return a text of so many letters."""
    return "x" * size
