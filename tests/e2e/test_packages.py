"""Packages from PyPI that were written for Celery, unmodified, at their real work."""

import json

import pytest

from tests.e2e.conftest import START_S, Farm

PROGRAM = """
import os
import time

import qbroker.compat.celery

qbroker.compat.celery.install()

from celery import Celery
from celery.signals import worker_process_init
from celery_progress.backend import Progress, ProgressRecorder
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

app = Celery("tracked", broker=os.environ["PROJ_BROKER"], backend="qbroker://")


@worker_process_init.connect(weak=False)
def trace_calls(**_):
    provider = TracerProvider()
    out = open(os.environ["PROJ_NOTES"], "a", buffering=1)
    line = lambda span: span.to_json(indent=None) + "\\n"
    provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=out, formatter=line)))
    trace.set_tracer_provider(provider)
    # It asks for the distribution called celery, which is not installed.
    CeleryInstrumentor().instrument(skip_dep_check=True)


@app.task(bind=True)
def copy(self, count, go_on):
    recorder = ProgressRecorder(self)
    for number in range(count):
        recorder.set_progress(number + 1, count, f"file {number + 1}")
        if number == 1:
            while not os.path.exists(go_on):
                time.sleep(0.01)
    return f"{count} files"


@app.task
def divide(x, y):
    return x / y


@app.task
def outer(x, y):
    divide.delay(x, y)
"""

CALLER = """
import sys
import time
from pathlib import Path

from tracked import Progress, copy, divide, outer, trace, trace_calls

trace_calls()
with trace.get_tracer("shop").start_as_current_span("order"):
    copied = copy.delay(4, "go")
    outer.delay(1, 0)
    print(f"trace {trace.get_current_span().get_span_context().trace_id:#034x}", flush=True)

print("begun", Progress(copied).get_info()["complete"], flush=True)
while Progress(copied).get_info()["progress"].get("current") != 2:
    time.sleep(0.01)
print("half", Progress(copied).get_info(), flush=True)
Path("go").touch()
copied.get(timeout=20)
print("over", Progress(copied).get_info(), flush=True)
"""


@pytest.mark.e2e
def test_progress_bars_and_traces_of_celerys_users_work(farm: Farm) -> None:
    (farm.folder / "tracked.py").write_text(PROGRAM)
    farm.broker()
    worker = farm.start("worker", "-A", "tracked", "-l", "INFO", "-c", "1")
    worker.wait_for(r"\bready\b")

    caller = farm.python(CALLER)

    trace_id = caller.wait_for(r"trace (0x\w+)").group(1)
    half = caller.wait_for("half (.*)").group(1)
    over = caller.wait_for("over (.*)").group(1)
    assert "'percent': 50.0, 'description': 'file 2'" in half
    assert "'success': True" in over
    assert "'result': '4 files'" in over
    assert caller.popen_wait(START_S) == 0
    worker.wait_for(r"divide\[.*ZeroDivisionError")
    assert worker.end() == 0
    spans = {span["name"]: span for span in map(json.loads, farm.notes())}
    assert {span["context"]["trace_id"] for span in spans.values()} == {trace_id}
    assert spans.keys() == {
        "order", "apply_async/tracked.copy", "apply_async/tracked.outer", "apply_async/tracked.divide",
        "run/tracked.copy", "run/tracked.outer", "run/tracked.divide",
    }  # fmt: skip
    assert (
        spans["run/tracked.divide"]["parent_id"]
        == spans["apply_async/tracked.divide"]["context"]["span_id"]
    )
    assert spans["run/tracked.divide"]["status"]["status_code"] == "ERROR"
    assert spans["run/tracked.copy"]["attributes"]["messaging.destination"] == "celery"
