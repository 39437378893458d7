"""What the benchmark's worker runs: nothing."""

from qbroker import App

app = App("bench", backend="qbroker://")


@app.task
def noop(text: str) -> None:
    """Do nothing."""
