"""The examples of web frameworks: each site is served, its tasks run on a worker, and its view answers tasks over HTTP."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from qbroker import App
from qbroker.task.http import HttpDispatch, RemoteExecuteError
from tests.docs import programs
from tests.docs.programs import Program

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "examples"


class Site(NamedTuple):
    """A site that is served, and an app at its broker."""

    name: str
    url: str
    app: App


SITES = {
    "django": ("mysite", ["manage.py", "runserver", "--noreload", "{port}"], "Quit the server"),
    "flask": ("web", ["-m", "flask", "--app", "web:site", "run", "--port", "{port}"], "Press CTRL"),
    "fastapi": ("web", ["-m", "uvicorn", "web:site", "--port", "{port}"], "Uvicorn running"),
}


@pytest.fixture(scope="module", params=SITES)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:  # fmt: skip
    module, words, ready = SITES[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(EXAMPLES / request.param, folder, dirs_exist_ok=True)
    port, web_port = programs.free_port(), programs.free_port()
    env = programs.environment(port, PYTHONPATH=str(folder))
    with ExitStack() as stack:

        def start(*argv: str) -> Program:
            return stack.enter_context(Program(argv, cwd=folder, env=env))

        if request.param == "django":
            assert start(sys.executable, "manage.py", "migrate", "--run-syncdb").wait() == 0
        start("qbroker", "serve").wait_for(programs.BROKER_READY)
        worker = start("qbroker", "worker", "-A", module, "-l", "INFO", "-c", "2")
        worker.wait_for(programs.WORKER_READY)
        web = start(sys.executable, *(word.format(port=web_port) for word in words))
        web.wait_for(ready)
        with App("asking", broker=f"qbroker://127.0.0.1:{port}", backend="qbroker://", set_as_current=False) as app:  # fmt: skip
            yield Site(request.param, f"http://127.0.0.1:{web_port}", app)
        assert worker.stop() == 0, worker.output


@pytest.mark.e2e
def test_a_sites_task_runs_on_a_worker(site: Site) -> None:
    answer = httpx.post(f"{site.url}/notes", data={"text": "four words are here"}).json()

    assert site.app.AsyncResult(answer["task_id"]).get(timeout=30) == 4
    if site.name == "django":
        assert httpx.get(f"{site.url}/notes/{answer['id']}").json()["words"] == 4
    else:
        shown = httpx.get(f"{site.url}/results/{answer['task_id']}").json()
        assert shown == {"state": "SUCCESS", "words": 4}


@pytest.mark.e2e
@pytest.mark.parametrize("site", ["django"], indirect=True)
def test_in_django_what_is_rolled_back_is_not_called(site: Site) -> None:
    undone = httpx.post(f"{site.url}/notes", data={"text": "no", "doubt": "1"}).json()
    kept = httpx.post(f"{site.url}/notes", data={"text": "yes"}).json()

    assert site.app.AsyncResult(kept["task_id"]).get(timeout=30) == 1
    assert not site.app.AsyncResult(undone["task_id"]).exists()


@pytest.mark.e2e
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_sites_view_answers_a_task_over_http(site: Site, method: str) -> None:
    def ask(**kwargs: object) -> object:
        url = f"{site.url}/multiply"
        return HttpDispatch(url, method, kwargs, allowed_hosts=("127.0.0.1",)).dispatch()

    assert ask(x=10, y=10) == 100
    with pytest.raises(RemoteExecuteError, match="x and y are to be numbers"):
        ask(x="moon", y=3)
