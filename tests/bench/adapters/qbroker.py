"""qbroker as one of the systems of the peers' harness; README.md beside run.py says how to use it.

The harness brings `base` and `probe`, and `brokers` starts what `qbroker_daemon` describes.
"""

import datetime as dt
from pathlib import Path

import probe
from base import PY, Base

from qbroker import App

app = App(
    "qbench",
    broker=probe.BROKER or None,
    backend="qbroker://" if probe.RESULTS else None,
)


@app.task
def noop(s: str) -> int | None:
    """Leave a mark, so that the harness can count."""
    probe.hit()
    return probe.RET


@app.task
def at(eta: float, s: str) -> int | None:
    """Leave a mark with the time it was meant for."""
    probe.hit(eta)
    return probe.RET


class Adapter(Base):
    """How the harness drives qbroker."""

    brokers = ("qbroker",)
    cases = "ABCDG"
    batch = 1000
    variants = ("prefork2", "threads2x8", "solo2")
    d_variants = ("prefork2", "threads2x8", "solo2")
    r_variants = ("prefork2", "solo2")
    a_results = True

    def workers(self, variant: str) -> list[list[str]]:
        """The workers' command lines."""
        qbroker = str(Path(PY).with_name("qbroker"))
        worker = [qbroker, "worker", "-A", "adapters.qbroker:app", "-l", "WARNING"]
        if variant == "prefork2":
            return [[*worker, "-P", "prefork", "-c", "2", "-n", "w1@qb"]]
        pool = ["-P", "threads", "-c", "8"] if variant == "threads2x8" else ["-P", "solo"]
        return [[*worker, *pool, "-n", f"w{number}@qb"] for number in (1, 2)]

    def send(self, s: str) -> None:
        """One call, confirmed."""
        noop.delay(s)

    def send_many(self, n: int, s: str) -> None:
        """`n` calls, confirmed together."""
        app.send_many([(noop, (s,)) for _ in range(n)])

    def call(self, s: str) -> None:
        """There and back."""
        noop.delay(s).get(timeout=10)

    def send_eta(self, eta: float, s: str) -> None:
        """One call for later."""
        due = dt.datetime.fromtimestamp(eta, tz=dt.UTC)
        at.apply_async((eta, s), eta=due)
