"""Attacks on the broker's port: the memory they cost, and the time they take from good clients."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ATTACKER = Path(__file__).resolve().parents[1] / "e2e" / "hostile.py"
ATTACKS = ("bomb", "binary", "large", "reset", "streams", "continuation", "garbage", "halves")


def resident_mib(pid: int) -> float:
    """Memory of the process in RAM: `VmRSS`."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def taken_s(call: Callable[[], object]) -> float:
    """Duration of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def p99_ms(durations_s: list[float]) -> float:
    """The 99th percentile of durations."""
    return statistics.quantiles(durations_s, n=100, method="inclusive")[98] * 1e3


def measured(
    attack: str,
    pid: int,
    address: str,
    *,
    publish: Callable[[], object],
    arrive: Callable[[], object],
    seconds: float,
) -> dict[str, float]:
    """Attack the broker with this process id for some seconds, and publish all the while.

    `publish` is a confirmed publish over a connection that exists, `arrive` one of a new client.
    """
    start_mib = resident_mib(pid)
    until = time.perf_counter() + seconds
    calm: list[float] = []
    while time.perf_counter() < until or len(calm) < 2:
        calm.append(taken_s(publish))
        time.sleep(0.002)
    busy: list[float] = []
    newcomers: list[float] = []
    peak_mib = start_mib
    argv = (sys.executable, str(ATTACKER), attack, address, str(seconds))
    with subprocess.Popen(argv) as attacker:
        next_arrival = time.perf_counter() + 0.5
        while attacker.poll() is None or len(busy) < 2:
            busy.append(taken_s(publish))
            if time.perf_counter() > next_arrival:
                newcomers.append(taken_s(arrive))
                next_arrival = time.perf_counter() + 0.5
            peak_mib = max(peak_mib, resident_mib(pid))
            time.sleep(0.002)
    newcomers.append(taken_s(arrive))
    time.sleep(2.0)
    return {
        f"{attack}_start_mib": start_mib,
        f"{attack}_peak_mib": peak_mib,
        f"{attack}_after_mib": resident_mib(pid),
        f"{attack}_calm_p99_ms": p99_ms(calm),
        f"{attack}_p99_ratio": p99_ms(busy) / p99_ms(calm),
        f"{attack}_newcomer_ms": max(newcomers) * 1e3,
    }
