"""Tasks over HTTP, at a server in this process."""

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from qbroker import App
from qbroker.serialization import Value
from qbroker.task.http import (
    URL,
    HostRefused,
    HttpDispatch,
    HttpDispatchTask,
    HttpUnreachable,
    InvalidResponseError,
    MutableURL,
    RemoteExecuteError,
    UnknownStatusError,
    extract_response,
    is_public,
    keeps_credentials,
)
from qbroker.testing import LocalBroker
from tests.sdk.conftest import MakeApp


class Handler(BaseHTTPRequestHandler):
    """The view of Celery's documentation, and some that do not behave."""

    def do_GET(self) -> None:
        self._answer(parse_qs(urlsplit(self.path).query))

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"] or 0)
        self._answer(parse_qs(self.rfile.read(size).decode()))

    def _answer(self, given: dict[str, list[str]]) -> None:
        path = urlsplit(self.path).path
        answers: dict[str, tuple[int, str, dict[str, str]]] = {
            "/fail": (
                200,
                json.dumps({"status": "failure", "reason": "Invalid moon alignment."}),
                {},
            ),
            "/odd": (200, json.dumps({"status": "maybe"}), {}),
            "/html": (200, "<html>", {}),
            "/empty": (200, "", {}),
            "/broken": (500, "", {}),
            "/loop": (302, "", {"Location": "/loop"}),
            "/moved": (302, "", {"Location": "/multiply?x=2&y=3"}),
            "/inside": (302, "", {"Location": "http://10.0.0.1/secret"}),
            "/large": (200, " " * (5 * 1024 * 1024), {}),
            "/host": (200, json.dumps({"status": "success", "retval": self.headers["Host"]}), {}),
            "/method": (200, json.dumps({"status": "success", "retval": self.command}), {}),
        }
        if path == "/multiply":
            product = int(given["x"][0]) * int(given["y"][0])
            answers[path] = (200, json.dumps({"status": "success", "retval": product}), {})
        status, body, headers = answers[path]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def ask(url: str, method: str = "GET", *, allowed: tuple[str, ...] = ("127.0.0.0/8",), **kwargs: Value) -> Value:  # fmt: skip
    return HttpDispatch(url, method, kwargs, allowed_hosts=allowed).dispatch()


# -- asking ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "post"])
def test_what_is_answered_is_the_value(site: str, method: str) -> None:
    assert ask(f"{site}/multiply", method, x=10, y=10) == 100


def test_arguments_join_those_of_the_url(site: str) -> None:
    assert ask(f"{site}/multiply?x=3", y=5) == 15


def test_a_failure_has_the_reason_that_was_given(site: str) -> None:
    with pytest.raises(RemoteExecuteError, match=r"Invalid moon alignment\."):
        ask(f"{site}/fail")


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/odd", "maybe"),
        ("/html", "is not valid JSON"),
        ("/empty", "Empty response"),
        ("/broken", "the status 500"),
        ("/loop", "redirects more than 5 times"),
        ("/large", "more than 4194304 bytes"),
    ],
)
def test_what_does_not_answer_as_a_task_is_told(site: str, path: str, why: str) -> None:
    with pytest.raises(InvalidResponseError, match=why):
        ask(site + path)


def test_a_redirect_is_followed_and_a_post_becomes_a_get(site: str) -> None:
    assert ask(f"{site}/moved") == 6
    assert ask(f"{site}/moved", "POST", x=1) == 6


def test_extract_response_reads_what_celery_reads() -> None:
    assert extract_response('{"status": "success", "retval": [1]}') == [1]
    for wrong in ("[]", '{"retval": 1}', '"success"'):
        with pytest.raises(InvalidResponseError, match="an object with a status"):
            extract_response(wrong)
    with pytest.raises(UnknownStatusError):
        extract_response('{"status": "unknown"}')


# -- whom one may ask ------------------------------------------------------------------------------


def test_a_machines_own_addresses_are_refused_unless_allowed(site: str) -> None:
    for address in ("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "::1",  # noqa: S104 - refused
                    "fd00::1", "fe80::1", "::ffff:127.0.0.1", "2002:7f00:1::", "224.0.0.1"):  # fmt: skip
        assert not is_public(address)
    assert is_public("93.184.216.34")
    assert is_public("2606:2800:220:1::1")
    with pytest.raises(HostRefused, match="name it in the setting http_allowed_hosts"):
        ask(f"{site}/multiply", allowed=(), x=1, y=1)


@pytest.mark.parametrize(
    "pattern", ["127.0.0.1", "127.0.0.0/8", "{host}", "{host}:{port}", "*.test"]
)
def test_allowed_hosts_are_names_ports_addresses_and_networks(site: str, pattern: str) -> None:
    port = site.rpartition(":")[2]
    pattern = pattern.format(host="web.test", port=port)

    dispatch = HttpDispatch(
        f"http://web.test:{port}/host",
        "GET",
        {},
        allowed_hosts=[pattern],
        resolve=lambda _host, _port: ["127.0.0.1"],
    )

    # It speaks to the address that was checked, by the name that was asked.
    assert dispatch.dispatch() == f"web.test:{port}"


@pytest.mark.parametrize("pattern", ["other.test", "web.test:1", "*.other", "10.0.0.0/8", "public"])
def test_an_allow_list_allows_nothing_else(pattern: str) -> None:
    dispatch = HttpDispatch(
        "http://web.test/", "GET", {}, allowed_hosts=[pattern], resolve=lambda *_: ["127.0.0.1"]
    )

    with pytest.raises(HostRefused, match="http_allowed_hosts names only"):
        dispatch.dispatch()


def test_a_redirect_into_the_network_is_refused(site: str) -> None:
    with pytest.raises(HostRefused, match=r"10\.0\.0\.1:80"):
        ask(f"{site}/inside")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://127.0.0.1/", "http://", "http://a:x/"]
)
def test_what_is_no_url_of_http_is_refused(url: str) -> None:
    with pytest.raises(HostRefused):
        ask(url)


def test_nobody_there_is_told_and_whether_the_request_was_sent() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(HttpUnreachable, match="ConnectError") as refused:
        ask(f"http://127.0.0.1:{port}/")
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(HttpUnreachable) as late:
        HttpDispatch(
            f"http://127.0.0.1:{silent.getsockname()[1]}/",
            "GET",
            {},
            allowed_hosts=["127.0.0.1"],
            timeout=0.05,
        ).dispatch()

    assert (refused.value.was_sent, late.value.was_sent) == (False, True)


# -- redirects to another origin -------------------------------------------------------------------


class Recorder(ThreadingHTTPServer):
    """Answers each path as told, and keeps every request it got."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RecorderHandler)
        self.answers: dict[str, tuple[int, dict[str, str]]] = {}
        self.requests: list[tuple[str, str, dict[str, str], str]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def paths(self) -> list[str]:
        return [path for _, path, _, _ in self.requests]


class RecorderHandler(BaseHTTPRequestHandler):
    """Answers for a Recorder."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Recorder)
        size = int(self.headers["Content-Length"] or 0)
        form = self.rfile.read(size).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.requests.append((self.command, self.path, headers, form))
        status, answer = self.server.answers.get(self.path, (200, {}))
        body = b'{"status": "success", "retval": "done"}'
        self.send_response(status)
        for name, value in answer.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Log nothing."""


@pytest.fixture
def origins() -> Iterator[tuple[Recorder, Recorder]]:
    servers = (Recorder(), Recorder())
    threads = [threading.Thread(target=one.serve_forever) for one in servers]
    for thread in threads:
        thread.start()
    yield servers
    for one, thread in zip(servers, threads, strict=True):
        one.shutdown()
        thread.join()
        one.server_close()


SECRETS = {
    "authorization": "Bearer hunter2",
    "Cookie": "session=hunter2",
    "X-Api-Key": "hunter2",
    "Proxy-Authorization": "Basic hunter2",
    "Referer": "http://inside/?token=hunter2",
}


def send(url: str, method: str = "GET", form: dict[str, Value] | None = None, **options: Value) -> Value:  # fmt: skip
    given: dict[str, Value] = {"allowed_hosts": ["127.0.0.0/8"], "headers": SECRETS} | options
    return HttpDispatch(url, method, form or {}, **given).dispatch()


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_origin_carries_no_header_of_the_task(
    origins: tuple[Recorder, Recorder], status: int, method: str
) -> None:
    first, second = origins
    first.answers["/start"] = (status, {"Location": f"{second.url}/end"})

    assert send(f"{first.url}/start", method) == "done"

    ((_, _, headers, form),) = second.requests
    assert "hunter2" not in str(headers)
    assert headers["accept"] == "application/json"
    assert form == ""
    assert first.requests[0][2]["authorization"] == "Bearer hunter2"


@pytest.mark.parametrize("status", [307, 308])
def test_a_form_is_not_sent_to_another_origin(
    origins: tuple[Recorder, Recorder], status: int
) -> None:
    first, second = origins
    first.answers["/start"] = (status, {"Location": f"{second.url}/end"})

    with pytest.raises(InvalidResponseError, match="to another origin"):
        send(f"{first.url}/start", "POST", {"card": "hunter2"})

    assert second.requests == []


@pytest.mark.parametrize("status", [307, 308])
def test_headers_and_form_follow_a_redirect_within_the_origin(
    origins: tuple[Recorder, Recorder], status: int
) -> None:
    first, _ = origins
    first.answers["/start"] = (status, {"Location": "/end", "Set-Cookie": "step=1"})

    assert send(f"{first.url}/start", "POST", {"x": 1}) == "done"

    method, path, headers, form = first.requests[1]
    assert (method, path, form) == ("POST", "/end", "x=1")
    assert headers["authorization"] == "Bearer hunter2"
    assert headers["x-api-key"] == "hunter2"


def test_headers_do_not_come_back_when_a_chain_returns_to_its_origin(
    origins: tuple[Recorder, Recorder],
) -> None:
    first, second = origins
    first.answers["/start"] = (302, {"Location": f"{second.url}/away"})
    second.answers["/away"] = (302, {"Location": f"{first.url}/end"})

    assert send(f"{first.url}/start") == "done"

    assert first.paths() == ["/start", "/end"]
    assert "hunter2" not in str(first.requests[1])


def test_a_cookie_that_one_origin_set_is_not_sent_to_another(
    origins: tuple[Recorder, Recorder],
) -> None:
    first, second = origins
    first.answers["/start"] = (
        302,
        {"Location": f"{second.url}/end", "Set-Cookie": "session=hunter2; Path=/"},
    )

    assert send(f"{first.url}/start", headers={}) == "done"

    assert "cookie" not in second.requests[0][2]


def test_user_and_password_of_a_url_stay_with_its_origin(
    origins: tuple[Recorder, Recorder],
) -> None:
    first, second = origins
    first.answers["/start"] = (302, {"Location": f"{second.url}/end"})
    url = first.url.replace("://", "://bob:hunter2@")

    assert send(f"{url}/start", headers={}) == "done"

    assert first.requests[0][2]["authorization"].startswith("Basic ")
    assert "authorization" not in second.requests[0][2]


def test_a_host_that_is_allowed_by_name_is_still_another_origin(
    origins: tuple[Recorder, Recorder],
) -> None:
    first, _ = origins
    port = first.url.rpartition(":")[2]
    first.answers["/start"] = (302, {"Location": f"http://b.test:{port}/end"})

    options: dict[str, Value] = {
        "allowed_hosts": ["a.test", "b.test"],
        "resolve": lambda *_: ["127.0.0.1"],
    }
    assert send(f"http://a.test:{port}/start", **options) == "done"

    assert first.requests[1][2]["host"] == f"b.test:{port}"
    assert "hunter2" not in str(first.requests[1])


@pytest.mark.parametrize(
    ("url", "target_url", "keeps"),
    [
        ("http://a.test/x", "http://a.test/y", True),
        ("http://a.test/x", "HTTP://A.Test:80/y", True),
        ("https://a.test/x", "https://a.test:443/", True),
        ("http://u:p@a.test/x", "http://a.test/", True),
        ("http://a.test/x", "https://a.test/x", True),
        ("http://a.test:80/x", "https://a.test:443/x", True),
        ("http://a.test:8080/x", "https://a.test/x", False),
        ("http://a.test/x", "https://a.test:8443/x", False),
        ("https://a.test/x", "http://a.test/x", False),
        ("https://a.test/x", "http://a.test:443/x", False),
        ("http://a.test/x", "http://a.test:81/x", False),
        ("http://a.test/x", "http://sub.a.test/x", False),
        ("http://a.test/x", "http://a.test.evil.test/x", False),
        ("http://a.test/x", "http://a.test@evil.test/x", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, target_url: str, keeps: bool) -> None:
    assert keeps_credentials(url, target_url) is keeps


@pytest.mark.parametrize("location", ["http://[broken", "http://a.test:x/"])
def test_a_redirect_to_a_malformed_url_is_told(
    origins: tuple[Recorder, Recorder], location: str
) -> None:
    first, _ = origins
    first.answers["/start"] = (302, {"Location": location})

    with pytest.raises((HttpUnreachable, InvalidResponseError)):
        send(f"{first.url}/start")


def test_a_host_header_of_the_task_does_not_replace_the_hosts_name(
    origins: tuple[Recorder, Recorder],
) -> None:
    first, _ = origins

    assert send(f"{first.url}/end", headers={"host": "elsewhere"}) == "done"

    assert first.requests[0][2]["host"] == first.url.removeprefix("http://")


def test_errors_about_a_url_hide_its_password_and_tokens(
    origins: tuple[Recorder, Recorder],
) -> None:
    first, _ = origins
    first.answers["/broken?token=hunter2"] = (500, {})
    url = first.url.replace("://", "://bob:hunter2@")

    with pytest.raises(InvalidResponseError, match="status 500") as broken:
        send(f"{url}/broken?token=hunter2")
    with pytest.raises(HostRefused) as refused:
        send("ftp://bob:hunter2@127.0.0.1/?token=hunter2")

    assert "hunter2" not in f"{broken.value}{refused.value}{URL(url)!r}"


# -- as tasks --------------------------------------------------------------------------------------


@pytest.fixture
def app(make_app: MakeApp) -> Iterator[App]:
    with LocalBroker() as broker:
        app = make_app(broker=broker.url, backend="qbroker://", http_allowed_hosts=["127.0.0.1"])
        app.finalize()
        app.local = broker  # type: ignore[attr-defined] # for the tests
        yield app


def test_a_url_is_called_and_a_worker_asks_it(app: App, site: str) -> None:
    got = URL(f"{site}/multiply").get_async(x=10, y=10)
    posted = URL(f"{site}/multiply", app=app).post_async(x=4, y=5)
    by_task = HttpDispatchTask.delay(url=f"{site}/method", method="POST")
    failed = HttpDispatchTask.delay(f"{site}/fail")

    app.local.drain(app)  # type: ignore[attr-defined] # see the fixture

    assert (got.get(timeout=5), posted.get(timeout=5)) == (100, 20)
    assert by_task.get(timeout=5) == "POST"
    with pytest.raises(RemoteExecuteError, match=r"Invalid moon alignment\."):
        failed.get(timeout=5)


def test_a_subclass_has_a_url_of_its_own(app: App, site: str) -> None:
    class Multiply(HttpDispatchTask):
        url = f"{site}/multiply"
        method = "POST"

    result = Multiply.delay(x=6, y=7)
    app.local.drain(app)  # type: ignore[attr-defined] # see the fixture

    assert result.get(timeout=5) == 42
    assert Multiply.name.endswith("Multiply")


def test_a_task_without_a_url_says_so(app: App) -> None:
    with pytest.raises(TypeError, match="has no url"):
        HttpDispatchTask.apply(throw=True)


class Counted(HttpDispatchTask):
    """Remembers which tries there were."""

    tries: ClassVar[list[Value]] = []

    def run(self, *args: Value, **kwargs: Value) -> Value:
        self.tries.append(self.request.retries)
        return super().run(*args, **kwargs)


def test_what_reached_nobody_is_tried_again(app: App) -> None:
    Counted.tries.clear()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/"

    result = Counted.apply((url, "POST"))

    assert isinstance(result.result, HttpUnreachable)
    assert Counted.tries == [0, 1, 2, 3]


def test_a_post_that_may_have_arrived_is_not_tried_again(app: App) -> None:
    Counted.tries.clear()
    app.conf.http_timeout = 0.05
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        result = Counted.apply((url, "POST"))

    assert isinstance(result.result, HttpUnreachable)
    assert Counted.tries == [0]


def test_a_url_can_be_changed() -> None:
    url = MutableURL("http://example.com/a?x=1#part")
    url.query["y"] = [2, 3]

    assert str(url) == "http://example.com/a?x=1&y=2&y=3#part"
    assert repr(URL("http://example.com")) == "<URL: http://example.com>"
