"""Tests of a Django project that run tasks, in a run of pytest's own: a process has one Django project."""

import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = """
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "db", "TEST": {{"NAME": {name!r}}}}}}}
INSTALLED_APPS = ["django.contrib.contenttypes"]
USE_TZ = True
"""

SUITE = """
import threading

import pytest
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import TestCase, TransactionTestCase

from qbroker import App
from qbroker.testing import LocalBroker

app = App("site", backend="qbroker://")


@app.task(name="site.count")
def count(label):
    ContentType.objects.create(app_label=label, model="by-task")
    return [ContentType.objects.filter(app_label=label).count(), threading.get_ident()]


def drained(label):
    ContentType.objects.create(app_label=label, model="by-test")
    with LocalBroker() as broker:
        app.conf.broker_url = broker.url
        results = [count.delay(label)]
        broker.drain(app)
        return results[0].get(timeout=30)


class InTransaction(TestCase):
    def test_drain(self):
        assert drained("in-transaction") == [2, threading.get_ident()]
        assert connection.in_atomic_block
        assert ContentType.objects.filter(app_label="in-transaction").count() == 2

    def test_nothing_is_left_of_the_test_before(self):
        assert not ContentType.objects.filter(app_label="in-transaction").exists()


class Committed(TransactionTestCase):
    def test_drain(self):
        assert drained("committed") == [2, threading.get_ident()]

    def test_a_worker_sees_what_is_committed(self):
        ContentType.objects.create(app_label="worker", model="by-test")
        with LocalBroker() as broker, broker.worker(app):
            app.conf.broker_url = broker.url
            counted, thread = count.delay("worker").get(timeout=30)
        assert counted == 2
        assert thread != threading.get_ident()
        assert ContentType.objects.filter(app_label="worker").count() == 2


@pytest.mark.django_db
def test_drain():
    assert drained("fixture") == [2, threading.get_ident()]
    assert connection.in_atomic_block


def test_drain_with_the_fixture(db):
    assert drained("fixture") == [2, threading.get_ident()]
"""


@pytest.mark.e2e
@pytest.mark.parametrize("name", [":memory:", "tests.sqlite3"])
def test_tasks_of_a_drain_are_in_the_transaction_of_a_django_test(
    tmp_path: Path, name: str
) -> None:
    pytest.importorskip("pytest_django", reason="pytest-django runs Django's tests")
    (tmp_path / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = site_settings\n")
    (tmp_path / "site_settings.py").write_text(SETTINGS.format(name=name))
    (tmp_path / "test_site.py").write_text(SUITE)

    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-header"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert "6 passed" in run.stdout
