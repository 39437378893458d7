"""What the benchmark's worker runs: nothing."""

import time

from qbroker import App

app = App("bench", backend="qbroker://")


@app.task
def noop(text: str) -> None:
    """Do nothing."""


@app.task
def late_by(due: float) -> float:
    """How many seconds after `due` (Unix time) it runs."""
    return time.time() - due


@app.task
def give(size: int) -> str:
    """Return a text of so many letters."""
    return "x" * size
