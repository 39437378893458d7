"""The package as a whole: its names, its weight, its types."""

import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import qbroker
from qbroker.app.defaults import SETTINGS

ROOT = Path(__file__).parents[2]


def test_the_public_names_are_sorted_and_there() -> None:
    assert qbroker.__all__ == sorted(qbroker.__all__)
    assert all(hasattr(qbroker, name) for name in qbroker.__all__)


def test_the_version_is_the_distributions() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert qbroker.__version__ == project["version"]


def test_importing_loads_neither_grpc_nor_asyncio_nor_click() -> None:
    program = (
        "import sys, qbroker; print(sorted({'grpc', 'asyncio', 'click', 'email'} & {*sys.modules}))"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout == "[]\n"


def test_the_plug_in_of_pytest_makes_who_does_not_use_it_wait_for_nothing() -> None:
    program = "import sys, qbroker.contrib.pytest; print(*sorted(m for m in sys.modules if m.startswith('qbroker')))"

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout.split() == [
        "qbroker", "qbroker._version", "qbroker.contrib", "qbroker.contrib.pytest",
    ]  # fmt: skip


def test_modules_are_attributes_and_what_is_not_there_is_none() -> None:
    program = "import qbroker; print(qbroker.schedules.__name__, *(name in dir(qbroker) for name in ('App', 'chain'))); qbroker.Ap"

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert ran.stdout == "qbroker.schedules True True\n"
    assert "module 'qbroker' has no attribute 'Ap'" in ran.stderr
    assert not hasattr(qbroker, "_missing")


def test_the_settings_are_sorted_and_say_what_they_mean() -> None:
    assert list(SETTINGS) == sorted(SETTINGS)
    assert all(setting.meaning.endswith(".") for setting in SETTINGS.values())


SAMPLE = """
from typing import Any, assert_type

from qbroker import App, AsyncResult, Signature, Task, shared_task
from qbroker.app.control import Revoked
from qbroker.exceptions import DuplicateTaskError, Retry
from qbroker.limits import Limit
from qbroker.result import Explanation

app = App("proj")


@app.task
def add(x: int, y: int = 1) -> int:
    return x + y


@app.task(queue="mail")
def send(to: str) -> None: ...


@app.task(bind=True)
def bound(self: Task[..., Any], x: int) -> str:
    return str(self.request.id)


@app.task
async def fetch(url: str) -> bytes:
    return b""


@app.task(bind=True, limits=[Limit("cust:{x}", rate="100/m", concurrency=3)])
def flaky(self: Task[..., Any], x: int) -> int:
    try:
        return x
    except OSError as exc:
        assert_type(self.retry(exc=exc, countdown=0.5, throw=False), Retry)
        raise self.retry(exc=exc, max_retries=None, queue="slow")


@shared_task
def shared(x: float) -> float:
    return x


assert_type(add.delay(1, y=2), AsyncResult[int])
assert_type(add.delay(1).get(timeout=1), int)
assert_type(add(1), int)
assert_type(add.s(1, 2), Signature[int])
assert_type(add.apply_async((1, 2), queue="x"), AsyncResult[int])
assert_type(bound.delay(1), AsyncResult[str])
assert_type(fetch.delay("u"), AsyncResult[bytes])
assert_type(shared.delay(1.0).get(), float)
send.delay("me")
assert_type(flaky.apply_async((1,), countdown=0.5, unique_key="k", labels={"a": 1}), AsyncResult[int])
assert_type(flaky.delay(1).explain(), Explanation)
assert_type(flaky.delay(1).stage, str)
assert_type(app.control.revoke("id", terminate=True), Revoked)
assert_type(app.control.revoke(["id"]).ended, tuple[str, ...])
assert_type(DuplicateTaskError("id", "why").holder, str)


async def main() -> None:
    assert_type(await add.adelay(1), AsyncResult[int])
    assert_type(await (await add.adelay(1)), int)
    assert_type(await fetch.adelay("u"), AsyncResult[bytes])


add.delay("one")  # WRONG: arg-type
add.delay()  # WRONG: call-arg
add.s(1)  # a partial call
bound.delay("x")  # WRONG: arg-type
send.delay(to=1)  # WRONG: arg-type
flaky.retry(countdown="soon")  # WRONG: arg-type
Limit("k", concurrency="3")  # WRONG: arg-type
app.control.revoke(1)  # WRONG: call-overload
"""


def test_users_calls_are_checked_by_mypy(tmp_path: Path) -> None:
    sample = tmp_path / "sample.py"
    sample.write_text(textwrap.dedent(SAMPLE))
    expected = [
        (number, line.rpartition(" ")[2])
        for number, line in enumerate(SAMPLE.splitlines(), 1)
        if "# WRONG" in line
    ]

    ran = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path}", sample],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={"MYPYPATH": f"{ROOT}/sdk:{ROOT}/proto"},
    )  # fmt: skip

    found = [
        (int(line.split(":")[1]), line.rpartition("[")[2].rstrip("]"))
        for line in ran.stdout.splitlines()
        if ": error:" in line and line.startswith("sample.py")
    ]
    assert found == expected, ran.stdout
