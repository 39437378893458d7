"""The first process of a container: a subreaper in a child process stands in for process 1."""

import signal
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's"),
]

PRELUDE = """
import ctypes, os, signal, subprocess, sys, time
from qbroker.cli.init import run_below_init
from qbroker.cli.main import main
PR_SET_CHILD_SUBREAPER = 36
assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
"""


def run(program: str) -> subprocess.CompletedProcess[str]:
    """Run it as a process that orphans become children of."""
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
    )


def test_orphans_of_the_program_are_reaped() -> None:
    ran = run("""
run_below_init()
shell = subprocess.run(["sh", "-c", "true & echo $!"], capture_output=True, text=True)
ends_at = time.monotonic() + 60
while os.path.exists(f"/proc/{shell.stdout.strip()}") and time.monotonic() < ends_at:
    os.sched_yield()
print("left" if os.path.exists(f"/proc/{shell.stdout.strip()}") else "reaped")
""")

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "reaped\n", "")


def test_the_program_keeps_the_exit_codes_of_its_own_children() -> None:
    ran = run("""
run_below_init()
print([subprocess.run(["sh", "-c", f"true & exit {code}"]).returncode for code in range(5)])
""")

    assert (ran.returncode, ran.stdout) == (0, "[0, 1, 2, 3, 4]\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1"])
def test_a_signal_is_passed_on_and_the_exit_code_is_the_programs(name: str) -> None:
    ran = run(f"""
run_below_init()
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.{name}])
os.kill(os.getppid(), signal.{name})
sys.exit(signal.sigwait([signal.{name}]))
""")

    assert ran.returncode == signal.Signals[name]


def test_a_program_that_a_signal_ends_has_the_exit_code_of_a_shell() -> None:
    ran = run("run_below_init(); os.kill(os.getpid(), signal.SIGKILL)")

    assert ran.returncode == 137


@pytest.mark.parametrize("is_init", [True, False])
def test_the_command_runs_below_the_reaper(is_init: bool) -> None:
    ran = run(f"""
first = os.getpid()
try:
    main(["--version"], is_init={is_init})
finally:
    print(os.getppid() == first)
""")

    assert ran.stdout.splitlines()[-1] == str(is_init)
    assert ran.returncode == 0
