"""HTTP callback tasks: work that another program does, asked for by URL."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from proj.celery import app

from qbroker.task.http import URL, HttpDispatchTask, RemoteExecuteError


class Multiply(BaseHTTPRequestHandler):
    """Answers as a callback does: with what it returns, or why it does not."""

    def do_GET(self) -> None:
        """Arguments in the URL."""
        self.answer(dict(parse_qsl(urlsplit(self.path).query)))

    def do_POST(self) -> None:
        """Arguments in a form."""
        form = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.answer(dict(parse_qsl(form)))

    def answer(self, given: dict[str, str]) -> None:
        """Multiply, unless the moon is wrong."""
        if "moon" in given:
            told = {"status": "failure", "reason": "Invalid moon alignment."}
        else:
            told = {"status": "success", "retval": int(given["x"]) * int(given["y"])}
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(told).encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Say nothing."""


with ThreadingHTTPServer(("127.0.0.1", 0), Multiply) as server:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/multiply"

    print("get:", URL(url, app=app).get_async(x=10, y=10).get(timeout=10))
    print("post:", URL(url, app=app).post_async(x=10, y=9).get(timeout=10))
    print("task:", HttpDispatchTask.delay(url=url, method="GET", x=3, y=3).get(timeout=10))
    try:
        URL(url, app=app).get_async(moon="full").get(timeout=10)
    except RemoteExecuteError as error:
        print("failure:", error)
    server.shutdown()
